//! Spans on their way to the collector, in batches.

use super::otlp::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, InstrumentationScope, KeyValue,
    Resource, ResourceSpans, ScopeSpans, Span,
};
use crate::config::Collector;
use crate::join::report::chain;
use http::uri::PathAndQuery;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// OpenTelemetry's SDK specification, batching processor: maxQueueSize, maxExportBatchSize,
/// scheduledDelayMillis, and the exporter's timeout.
pub(super) const QUEUE: usize = 2048;
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Sends spans to a collector over gRPC without TLS, as the stock kubelet does.
pub struct Exporter {
    collector: Collector,
    resource: Resource,
    spans: mpsc::Receiver<Span>,
}

impl Exporter {
    pub(super) fn new(
        collector: &Collector,
        node_name: &str,
        spans: mpsc::Receiver<Span>,
    ) -> Exporter {
        let attributes = [
            ("service.name", "kubelet"),
            ("service.version", crate::defaults::KUBELET_VERSION),
            ("host.name", node_name),
        ];
        Exporter {
            collector: collector.clone(),
            resource: Resource {
                attributes: attributes
                    .map(|(key, value)| KeyValue::text(key, value))
                    .into(),
            },
            spans,
        }
    }

    /// Until `shutdown`; what is left then is sent once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let channel = match channel(&self.collector) {
            Ok(channel) => channel,
            Err(e) => {
                let (collector, why) = (&self.collector, chain(&e));
                tracing::warn!(%collector, why, "no traces are sent");
                return;
            }
        };
        let mut silent = false;
        let mut down = false;
        while !down {
            let batch;
            (batch, down) = self.batch(&shutdown).await;
            if batch.is_empty() {
                continue;
            }
            let sent = self.send(channel.clone(), batch).await;
            // Once, not each time: a collector may be away for days.
            if let Err(status) = &sent
                && !silent
            {
                let (collector, why) = (&self.collector, status.message());
                tracing::warn!(%collector, why, "spans are lost; trying on");
            }
            silent = sent.is_err();
        }
    }

    /// As many as there are, and whether they are the last.
    async fn batch(&mut self, shutdown: &CancellationToken) -> (Vec<Span>, bool) {
        let mut batch = Vec::new();
        let wait = tokio::time::sleep(DELAY);
        tokio::pin!(wait);
        while batch.len() < BATCH {
            tokio::select! {
                () = &mut wait => break,
                () = shutdown.cancelled() => {
                    while let Ok(span) = self.spans.try_recv() {
                        batch.push(span);
                    }
                    return (batch, true);
                }
                span = self.spans.recv() => match span {
                    Some(span) => batch.push(span),
                    None => return (batch, true),
                },
            }
        }
        (batch, false)
    }

    async fn send(&self, channel: Channel, spans: Vec<Span>) -> Result<(), Status> {
        let scope = InstrumentationScope {
            name: "lighter".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let message = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                }],
            }],
        };
        let mut grpc = Grpc::new(channel);
        grpc.ready()
            .await
            .map_err(|e| Status::unavailable(chain(&e)))?;
        let codec = ProstCodec::<ExportTraceServiceRequest, ExportTraceServiceResponse>::default();
        let path = PathAndQuery::from_static(EXPORT);
        let answer = grpc.unary(Request::new(message), path, codec).await?;
        match answer.into_inner().partial_success {
            Some(partial) if partial.rejected_spans > 0 => Err(Status::data_loss(format!(
                "{} refused: {}",
                partial.rejected_spans, partial.error_message
            ))),
            _ => Ok(()),
        }
    }
}

/// Connects when it is first used, and again when it was lost.
fn channel(collector: &Collector) -> Result<Channel, tonic::transport::Error> {
    let address = match collector {
        Collector::Unix(path) => return Ok(crate::socket::lazy(path, TIMEOUT)),
        Collector::Tcp(address) => address,
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT)
        .connect_lazy())
}
