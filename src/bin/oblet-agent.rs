use std::process::ExitCode;

fn main() -> ExitCode {
    oblet::agent::host::shim::main()
}
