//! Black-box tests of every behaviour, for every worker class, over real sockets and real processes.
