//! What is done with proxies and their clusters.

pub(super) mod install;
