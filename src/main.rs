//! The `raftgate` program: arguments to `serve`, `demo`, `recover`, `secrets` or a client command.

use std::process::ExitCode;
use std::sync::Arc;

use raftgate::config::NodeConfig;
use raftgate::ctl::{self, Arguments, Command, RecoverArguments, ServeArguments};
use raftgate::server::Recovery;
use raftgate::{observe, server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Arguments { command, connection } = Arguments::of_process();
    let outcome = match command {
        Command::Serve(arguments) => serve(&arguments),
        Command::Demo(arguments) => on_runtime(ctl::run_demo(arguments)),
        Command::Recover(arguments) => recover(&arguments),
        Command::Secrets(command) => ctl::run_secrets(&command),
        Command::Certs(command) => ctl::make_certificates(&command).map(|()| ExitCode::SUCCESS),
        Command::Client(command) => on_runtime(ctl::run(connection, command)),
        Command::Completions { shell } => {
            ctl::print_completions(shell);
            Ok(ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| ctl::fail(&error))
}

fn serve(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    let config = NodeConfig::load(arguments.node.config.as_deref(), arguments.overrides())?;
    observe::logging::init(&config.log)?;
    observe::arm_crash_points();
    let (path, overrides) = (arguments.node.config.clone(), arguments.overrides());
    let reread = Arc::new(move || NodeConfig::load(path.as_deref(), overrides.clone()));
    let stop_with_stdin = arguments.stop_with_stdin;
    server::runtime()?.block_on(async {
        let terminated = server::terminated()?;
        let stdin_closed = async {
            match stop_with_stdin {
                true => server::stdin_closed().await,
                false => std::future::pending().await,
            }
        };
        let shutdown = async {
            tokio::select! {
                () = terminated => {}
                () = stdin_closed => {}
            }
        };
        server::run(config, reread, shutdown).await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn recover(arguments: &RecoverArguments) -> anyhow::Result<ExitCode> {
    let config = NodeConfig::load(arguments.node.config.as_deref(), arguments.node.overrides())?;
    observe::logging::init(&config.log)?;
    let recovery = server::recover(&config, |report| ctl::confirm(report, arguments.yes))?;
    ctl::say(&recovery.to_string());
    Ok(if matches!(recovery, Recovery::Declined) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One thread is enough for a client.
fn on_runtime(command: impl Future<Output = ExitCode>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(command))
}
