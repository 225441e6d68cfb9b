//! The emulator's program.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    rqemu_frontend::main()
}
