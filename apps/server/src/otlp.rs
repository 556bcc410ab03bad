//! Traces for OpenTelemetry: the spans of a message's way, sent to a collector.
//!
//! Owns: the exporter, what of the spans goes to it, the last of them at a stop. Must not: hold up the server: where the
//! collector is slow or gone, spans are lost. Next: the replica crate's `way.rs`; docs/operations.md, "Traces".

use std::fmt::{self, Debug, Formatter};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use syncline_replica::{Trust, way};
use syncline_server::fetch::{Ask, fetch};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;
use url::Url;

/// Longest that the collector may take for one batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where collectors take traces, unless the address says otherwise.
const PATH: &str = "/v1/traces";

/// Traces on their way to a collector.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Traces for the collector at this address. They are sent by the runtime.
    ///
    /// # Errors
    /// When the address is none.
    pub(crate) fn to(endpoint: &Url, trust: Trust, runtime: Handle) -> anyhow::Result<Self> {
        let mut url = endpoint.clone();
        if url.path() == "/" {
            url.set_path(PATH);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url.as_str())
            .with_timeout(TIMEOUT)
            .with_http_client(Client { trust, runtime })
            .build()
            .context("--otlp-endpoint")?;
        let resource = Resource::builder().with_service_name("syncline-server").build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self { provider })
    }

    /// Takes the spans of messages' ways, and no others.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let ways = Targets::new().with_target(way::TARGET, LevelFilter::TRACE);
        let layer = tracing_opentelemetry::layer().with_tracer(self.provider.tracer("syncline"));
        layer.with_location(false).with_threads(false).with_filter(ways)
    }

    /// Sends what is left. Blocks until that is done, or the collector has had its time.
    pub(crate) fn end(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(TIMEOUT) {
            tracing::warn!("the last traces could not be sent: {error}");
        }
    }
}

/// The server's own HTTP. The exporter has a thread without a runtime, so each request is a task of the server's.
struct Client {
    trust: Trust,
    runtime: Handle,
}

impl Debug for Client {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let trust = self.trust.clone();
        let (head, body) = request.into_parts();
        let sending = self.runtime.spawn(async move {
            let url: Url = head.uri.to_string().parse().map_err(|error: url::ParseError| error.to_string())?;
            let ask = Ask { body: Some(body), content_type: Some("application/x-protobuf"), ..Ask::default() };
            fetch(&url, ask, &trust, TIMEOUT).await
        });
        Box::pin(async move {
            let answer = sending.await?;
            Ok(Response::new(answer?))
        })
    }
}

#[cfg(test)]
mod tests;
