//! The command `portwatch`.

fn main() -> std::process::ExitCode {
    portwatch::cli::main()
}
