//! The kinds of plugins.

/// The expected kind of library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A worker class.
    Class,
    /// An application.
    App,
    /// A hook plugin.
    Hooks,
}

impl Kind {
    /// Returns the operator's name of the kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Class => "worker class",
            Self::App => "application",
            Self::Hooks => "hook plugin",
        }
    }

    /// Returns the kind with its article.
    pub(super) fn with_article(self) -> &'static str {
        match self {
            Self::Class => "a worker class",
            Self::App => "an application",
            Self::Hooks => "a hook plugin",
        }
    }

    /// Returns how the operator passes a library of the kind.
    pub(super) fn how_to_pass(self) -> &'static str {
        match self {
            Self::Class => "pass it with --worker-class",
            Self::App => "pass it as the argument APPLICATION",
            Self::Hooks => "pass it with --hooks",
        }
    }

    /// All kinds.
    pub(super) const ALL: [Self; 3] = [Self::Class, Self::App, Self::Hooks];
}
