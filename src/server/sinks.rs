//! Where requests are told of: opened with the node, and written to the end when it stops.

use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task;
use tracing::{error, warn};

use super::ServerError;
use crate::config::NodeConfig;
use crate::model::NodeId;
use crate::observe::{AccessLog, Metrics, RequestSinks, TraceOptions, Traces};

/// How long a stop waits for the collector.
const EXPORT_DEADLINE: Duration = Duration::from_secs(2);

/// The access log and the traces, and who writes them.
#[derive(Debug)]
pub(super) struct Sinks {
    access_log: Option<(AccessLog, JoinHandle<()>)>,
    /// Sends what is left of the traces once nobody makes any.
    exporter: Option<task::JoinHandle<()>>,
}

impl Sinks {
    /// Opens the access log's file, so that one that cannot be written is told at once.
    pub(super) fn open(config: &NodeConfig, metrics: &Metrics) -> Result<Sinks, ServerError> {
        let open = |path: &std::path::PathBuf| {
            let file = (path.as_os_str() != "-").then_some(path.as_path());
            AccessLog::open(file, metrics.access_log_dropped.clone())
        };
        let access_log = config.access_log.path.as_ref().map(open).transpose().map_err(ServerError::AccessLog)?;
        Ok(Sinks { access_log, exporter: None })
    }

    /// For the proxy, once the node knows its id.
    pub(super) fn start(&mut self, config: &NodeConfig, node_id: NodeId, metrics: &Metrics) -> Result<RequestSinks, ServerError> {
        let access_log = self.access_log.as_ref().map(|(log, _)| log.clone());
        let Some(tracing) = &config.tracing else { return Ok(RequestSinks { access_log, traces: None }) };
        let options = TraceOptions {
            endpoint: tracing.otlp_endpoint.clone(),
            sampled_per_million: tracing.sampled_per_million,
            service_name: tracing.service_name.clone(),
            node_id,
        };
        let (traces, exporter) = Traces::start(options, metrics).map_err(ServerError::Traces)?;
        self.exporter = Some(exporter);
        Ok(RequestSinks { access_log, traces: Some(traces) })
    }

    /// Writes and sends what is left. The proxy is gone.
    pub(super) async fn end(self) {
        if let Some(exporter) = self.exporter
            && tokio::time::timeout(EXPORT_DEADLINE, exporter).await.is_err()
        {
            warn!("the collector does not take the last spans");
        }
        let written = self.access_log.map(|(log, writer)| {
            drop(log);
            task::spawn_blocking(move || writer.join())
        });
        if let Some(written) = written
            && !matches!(written.await, Ok(Ok(())))
        {
            error!("the access log's thread did not end in order");
        }
    }
}
