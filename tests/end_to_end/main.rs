//! The whole system on real parts: real programs, real mutual TLS, the real `rpm` with a database of its own, and a
//! stand-in for obproxy that is really installed, started, logged in to and scraped.

mod crashes;
mod install;
mod lab;
mod rollback;
