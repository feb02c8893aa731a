//! Steps about a package.

pub(super) mod install;
