//! A collector of OpenTelemetry traces, in the process of the test.

use anyhow::{Context as _, Result, bail};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// An exported span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of the process.
    pub process: String,
    /// The service within the process: the instrumentation scope.
    pub service: String,
    /// Name of the operation.
    pub name: String,
    /// Trace id.
    pub trace: Vec<u8>,
    /// Span id.
    pub id: Vec<u8>,
    /// Span id of the parent; empty for the root.
    pub parent: Vec<u8>,
    /// `server`, `client`, `producer`, `consumer` or `internal`.
    pub kind: &'static str,
    /// Nanoseconds since 1970.
    pub began: u64,
    /// Nanoseconds since 1970.
    pub ended: u64,
    /// Whether it ended as an error.
    pub failed: bool,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    /// `SERVICE NAME`.
    pub fn title(&self) -> String {
        format!("{} {}", self.service, self.name)
    }
}

/// Receives spans at an address of its own until it is dropped.
#[derive(Debug)]
pub struct Collector {
    /// The value for the setting `trace.endpoint`.
    pub endpoint: String,
    spans: Spans,
    _server: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Starts the collector.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let spans = Spans::default();
        let service = TraceServiceServer::new(spans.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let router = tonic::transport::Server::builder().add_service(service);
            // If the server fails, no span arrives and the test reports that.
            let _ = router.serve_with_incoming(TcpIncoming::from(listener)).await;
        });
        Ok(Self { endpoint, spans, _server: server })
    }

    /// The received traces, each with its spans in the order of their start.
    pub fn traces(&self) -> Vec<Trace> {
        let mut traces: BTreeMap<Vec<u8>, Vec<Span>> = BTreeMap::new();
        for span in self.spans.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            traces.entry(span.trace.clone()).or_default().push(span.clone());
        }
        let mut traces: Vec<_> = traces.into_values().map(Trace).collect();
        traces.iter_mut().for_each(|trace| trace.0.sort_by_key(|span| span.began));
        traces.sort_by_key(|trace| trace.0[0].began);
        traces
    }
}

/// The spans of one trace.
#[derive(Clone, Debug)]
pub struct Trace(pub Vec<Span>);

impl Trace {
    /// The root span.
    ///
    /// # Errors
    /// If there is none, or more than one, or if the parent of a span is missing.
    pub fn root(&self) -> Result<&Span> {
        for span in &self.0 {
            let has_parent = span.parent.is_empty() || self.0.iter().any(|other| other.id == span.parent);
            if !has_parent {
                bail!("the parent of {} is missing", span.title());
            }
        }
        let mut roots = self.0.iter().filter(|span| span.parent.is_empty());
        let root = roots.next().context("a trace without a root")?;
        match roots.next() {
            Some(other) => bail!("two roots: {} and {}", root.title(), other.title()),
            None => Ok(root),
        }
    }

    /// The paths from the root to every leaf, as titles joined by ` > `.
    pub fn paths(&self) -> Vec<String> {
        let is_leaf = |span: &&Span| self.0.iter().all(|other| other.parent != span.id);
        self.0.iter().filter(is_leaf).map(|leaf| self.path(leaf)).collect()
    }

    fn path(&self, span: &Span) -> String {
        match self.0.iter().find(|parent| parent.id == span.parent) {
            Some(parent) => format!("{} > {}", self.path(parent), span.title()),
            None => span.title(),
        }
    }

    /// A readable tree: one line per span, with its start after the first span and its duration.
    pub fn tree(&self) -> String {
        let mut tree = String::new();
        let began = self.0.first().map_or(0, |span| span.began);
        for root in self.0.iter().filter(|span| span.parent.is_empty()) {
            self.branch(root, 0, began, &mut tree);
        }
        tree
    }

    fn branch(&self, span: &Span, depth: usize, first: u64, tree: &mut String) {
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        let (after, took) = (ms(span.began - first), ms(span.ended.saturating_sub(span.began)));
        let title = format!("{:indent$}{}", "", span.title(), indent = 2 * depth);
        let _ = write!(tree, "{title:<38} {:<9}+{after:>8.3} ms {took:>8.3} ms", span.kind);
        if span.process != span.service {
            let _ = write!(tree, " in {}", span.process);
        }
        for (key, value) in &span.attributes {
            let _ = write!(
                tree,
                " {}={value}",
                key.trim_start_matches("godwit.").trim_start_matches("messaging.")
            );
        }
        tree.push('\n');
        for child in self.0.iter().filter(|child| child.parent == span.id) {
            self.branch(child, depth + 1, first, tree);
        }
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.into_inner().resource_spans {
            let process = resource.resource.map(|resource| texts(&resource.attributes)).unwrap_or_default();
            let process = process.get("service.name").cloned().unwrap_or_default();
            for scope in resource.scope_spans {
                let service = scope.scope.map(|scope| scope.name).unwrap_or_default();
                spans.extend(scope.spans.into_iter().map(|span| Span {
                    process: process.clone(),
                    service: service.clone(),
                    attributes: texts(&span.attributes),
                    failed: span.status.is_some_and(|status| status.code == 2),
                    kind: kind(span.kind),
                    name: span.name,
                    trace: span.trace_id,
                    id: span.span_id,
                    parent: span.parent_span_id,
                    began: span.start_time_unix_nano,
                    ended: span.end_time_unix_nano,
                }));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn kind(kind: i32) -> &'static str {
    match kind {
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "internal",
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => format!("{other:?}"),
    };
    let value = |attribute: &KeyValue| Some(text(attribute.value.as_ref()?.value.as_ref()?));
    attributes.iter().filter_map(|one| Some((one.key.clone(), value(one)?))).collect()
}
