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

/// A span as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of the process.
    pub process: String,
    /// The service within the process: the instrumentation scope.
    pub service: String,
    /// What was done.
    pub name: String,
    /// Trace id.
    pub trace: Vec<u8>,
    /// Span id.
    pub id: Vec<u8>,
    /// Span id of what it is part of; empty at the root.
    pub parent: Vec<u8>,
    /// `server`, `client`, `producer`, `consumer` or `internal`.
    pub kind: &'static str,
    /// Nanoseconds since 1970.
    pub began: u64,
    /// Nanoseconds since 1970.
    pub ended: u64,
    /// Whether it ended as an error.
    pub failed: bool,
    /// What it says beside that.
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    /// `SERVICE NAME`.
    pub fn title(&self) -> String {
        format!("{} {}", self.service, self.name)
    }
}

/// Takes spans at an address of its own until it is dropped.
#[derive(Debug)]
pub struct Collector {
    /// What `trace.endpoint` is set to.
    pub endpoint: String,
    told: Told,
    _server: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Begins to listen.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let told = Told::default();
        let service = TraceServiceServer::new(told.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let router = tonic::transport::Server::builder().add_service(service);
            // It ends with the collector; should it fail before, no span comes and the test says so.
            let _ = router.serve_with_incoming(TcpIncoming::from(listener)).await;
        });
        Ok(Self { endpoint, told, _server: server })
    }

    /// The traces so far, each with its spans in the order in which they began.
    pub fn traces(&self) -> Vec<Trace> {
        let mut traces: BTreeMap<Vec<u8>, Vec<Span>> = BTreeMap::new();
        for span in self.told.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
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
    /// The one span without a parent.
    ///
    /// # Errors
    /// If there is none, or several, or a span's parent is missing.
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

    /// The ways from the root to every span without a child, as titles joined by ` > `.
    pub fn ways(&self) -> Vec<String> {
        let is_end = |span: &&Span| self.0.iter().all(|other| other.parent != span.id);
        self.0.iter().filter(is_end).map(|end| self.way(end)).collect()
    }

    fn way(&self, span: &Span) -> String {
        match self.0.iter().find(|parent| parent.id == span.parent) {
            Some(parent) => format!("{} > {}", self.way(parent), span.title()),
            None => span.title(),
        }
    }

    /// The tree, for people: one line per span, with when it began after the first one and how long it took.
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
impl TraceService for Told {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.into_inner().resource_spans {
            let process = resource.resource.map(|resource| texts(&resource.attributes)).unwrap_or_default();
            let process = process.get("service.name").cloned().unwrap_or_default();
            for scope in resource.scope_spans {
                let service = scope.scope.map(|scope| scope.name).unwrap_or_default();
                told.extend(scope.spans.into_iter().map(|span| Span {
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
