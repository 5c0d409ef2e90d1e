//! Listeners, as those see them who connect.
