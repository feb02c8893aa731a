//! Whole fleets on real systemd hosts: packages, units, enrolment, restarts, cuts, full disks, upgrades.
//!
//! `lab.sh` raises the hosts; everything here goes through what an operator has: REST, package managers, systemctl.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and what it prints is shown then"
)]

mod disk;
mod fleet;
mod installation;
#[path = "../support/lab_numbers.rs"]
mod lab_numbers;
mod network;
mod reboot;
#[path = "../support/rest.rs"]
mod rest;
mod restarts;
#[path = "../support/skip.rs"]
mod skip;
mod supervisors;
mod upgrade;
mod versions;
