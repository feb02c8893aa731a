//! The host that steps act on.

pub mod shim {
    //! The small program between the agent and a database process.

    pub fn main() -> std::process::ExitCode {
        std::process::ExitCode::FAILURE
    }
}
