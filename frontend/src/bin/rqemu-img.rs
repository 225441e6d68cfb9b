//! Disk image tool.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rqemu_frontend::img::main()
}
