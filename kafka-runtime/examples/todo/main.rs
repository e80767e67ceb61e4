//! A to-do list as a service. The server writes the commands that it gets over gRPC to a topic, as events. A consumer reads
//! the events and builds the list in memory, again at each start. The topic is the source of truth.
//!
//! ```text
//! todo add "buy tea" ──gRPC──▶ server ──▶ topic ──▶ consumer ──▶ list ──gRPC──▶ todo list
//! ```
//!
//! On the embedded log, in one terminal (`log.keep` keeps records that every group has read):
//!
//! ```sh
//! cargo run -p kafka-runtime --example todo -- serve --address 'log:/tmp/todo?topics=todo&log.keep=1000000'
//! ```
//!
//! In another terminal:
//!
//! ```sh
//! cargo run -p kafka-runtime --example todo -- add 'buy tea'  # prints its id
//! cargo run -p kafka-runtime --example todo -- complete ID
//! cargo run -p kafka-runtime --example todo -- list
//! ```
//!
//! On Apache Kafka: `--address 'kafka://127.0.0.1:9092?topics=todo&partitions=4'`. Kafka removes events older than the topic's
//! `retention.ms`, a week by default. With `--offset newest` (or `TODO_OFFSET=newest`) the list starts empty and shows new
//! events only. Ctrl-C stops it gracefully: first the server, so that every command is answered, then the consumer.
#![expect(clippy::print_stdout, reason = "the client is a tool for people")]

mod api;

use anyhow::Context as _;
use api::{AddRequest, Added, CompleteRequest, Completed, Item, ListResponse};
use clap::{Parser, Subcommand, ValueEnum};
use kafka_runtime::codec::{Codec as _, DecodeLayer, Decoded, Envelope, Protobuf};
use kafka_runtime::{Address, HandlerError, Producer, ProducerRecord, RecordHandler, Runtime};
use prost::Name;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Status, transport::Uri};
use tower::ServiceBuilder;

/// A to-do list, kept in a log.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
    /// URL of the server
    #[arg(long, env = "TODO_SERVER", default_value = "http://127.0.0.1:50051", global = true)]
    server: Uri,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server and the consumer
    Serve(Serve),
    /// Add an item and print its id
    Add { title: String },
    /// Complete an item
    Complete { id: String },
    /// Print all items
    List,
}

#[derive(clap::Args)]
struct Serve {
    /// Address of the events: kafka://HOST:PORT?topics=TOPIC, or log:DIRECTORY?topics=TOPIC, and more options
    #[arg(long, env = "TODO_ADDRESS")]
    address: String,
    /// First event to read
    #[arg(long, env = "TODO_OFFSET", default_value = "oldest")]
    offset: Offset,
    /// Address to listen on
    #[arg(long, env = "TODO_LISTEN", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
}

#[derive(Clone, Copy, ValueEnum)]
enum Offset {
    /// The oldest event that the topic still has
    Oldest,
    /// The first event after the start
    Newest,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Options { command, server } = Options::parse();
    match command {
        Command::Serve(options) => return serve(&options).await,
        Command::Add { title } => {
            let item: Item = api::call(server, api::ADD, AddRequest { title }).await?;
            println!("{}", item.id);
        }
        Command::Complete { id } => api::call(server, api::COMPLETE, CompleteRequest { id }).await?,
        Command::List => {
            let list: ListResponse = api::call(server, api::LIST, ()).await?;
            for Item { id, title, is_done, .. } in list.items {
                println!("{id} [{}] {title}", if is_done { 'x' } else { ' ' });
            }
        }
    }
    Ok(())
}

/// Runs the server and the consumer until a signal arrives or one of them fails.
async fn serve(options: &Serve) -> anyhow::Result<()> {
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    tracing_subscriber::fmt().with_ansi(is_terminal).init();
    let address = options.address()?;

    let mut runtime = Runtime::new();
    let topic = address.topics().first().context("the address names no topic")?;
    let (producer, list) = (runtime.producer(&address)?, List::default());
    let commands = Commands { producer, topic: topic.as_str().into(), list: list.clone() };
    let runtime = runtime.records("todo", &address, project(list))?;

    let listener = TcpListener::bind(options.listen).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);

    // At a signal the server stops first and the consumer after it. If the consumer fails, the server stops
    // too.
    let (server_ended, consumer_ended) = (CancellationToken::new(), CancellationToken::new());
    let server = async {
        let _ended = server_ended.clone().drop_guard();
        let stop = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = consumer_ended.cancelled() => {}
            }
        };
        let service = tower::service_fn(move |request| commands.clone().answer(request));
        let server = Server::builder().timeout(Duration::from_secs(10));
        server.serve_with_incoming_shutdown(service, TcpIncoming::from(listener), stop).await
    };
    let consumer = async {
        let _ended = consumer_ended.clone().drop_guard();
        runtime.run(server_ended.clone()).await
    };
    let (served, consumed) = tokio::join!(server, consumer);
    served.context("the server ended")?;
    consumed.context("the consumer ended")
}

impl Serve {
    /// Each start builds the list from the beginning, so it uses its own group, which starts at the configured offset.
    fn address(&self) -> Result<Address, kafka_runtime::Error> {
        let offset = match self.offset {
            Offset::Oldest => "earliest",
            Offset::Newest => "latest",
        };
        let group = uuid::Uuid::new_v4().simple();
        format!("{}&group=todo-{group}&offset={offset}", self.address).parse()
    }
}

/// The items by id.
#[derive(Clone, Default)]
struct List(Arc<Mutex<BTreeMap<String, Item>>>);

impl List {
    fn items(&self) -> MutexGuard<'_, BTreeMap<String, Item>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Idempotent: an event may be delivered twice.
    fn apply(&self, event: &Envelope) -> Result<(), HandlerError> {
        let mut items = self.items();
        if event.type_name() == Added::full_name() {
            let Added { id, title } = event.open().map_err(HandlerError::reject)?;
            let item = Item { id: id.clone(), title, is_done: false, added_ms: event.time_ms };
            items.entry(id).or_insert(item);
        } else if event.type_name() == Completed::full_name() {
            let Completed { id } = event.open().map_err(HandlerError::reject)?;
            // With `newest` the event of its creation may not have been read.
            if let Some(item) = items.get_mut(&id) {
                item.is_done = true;
            }
        } else {
            return Err(HandlerError::reject("an event of an unknown type"));
        }
        Ok(())
    }
}

/// The handler of the consumer: builds the list from the events.
fn project(list: List) -> impl RecordHandler {
    ServiceBuilder::new()
        .layer(DecodeLayer::new(Protobuf))
        .service_fn(move |event: Decoded<Envelope>| ready(list.apply(&event.value)))
}

/// The server: handles commands. An answered command is durable as an event; the list shows it a moment later.
#[derive(Clone)]
struct Commands {
    producer: Arc<dyn Producer>,
    topic: Arc<str>,
    list: List,
}

impl Commands {
    async fn answer(self, request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
        Ok(match request.uri().path() {
            api::ADD => api::unary(request, |request| self.add(request)).await,
            api::COMPLETE => api::unary(request, |request| self.complete(request)).await,
            api::LIST => api::unary(request, |()| ready(Ok(self.list()))).await,
            _ => Status::unimplemented("no such method").into_http(),
        })
    }

    async fn add(&self, AddRequest { title }: AddRequest) -> Result<Item, Status> {
        if title.is_empty() {
            return Err(Status::invalid_argument("the title is empty"));
        }
        let id = format!("{:016x}", rand::random::<u64>());
        let added_ms = self.write(&id, &Added { id: id.clone(), title: title.clone() }).await?;
        Ok(Item { id, title, is_done: false, added_ms })
    }

    async fn complete(&self, CompleteRequest { id }: CompleteRequest) -> Result<(), Status> {
        if !self.list.items().contains_key(&id) {
            return Err(Status::not_found("no item has this id"));
        }
        self.write(&id, &Completed { id: id.clone() }).await?;
        Ok(())
    }

    fn list(&self) -> ListResponse {
        let mut items: Vec<Item> = self.list.items().values().cloned().collect();
        items.sort_by_key(|item| item.added_ms);
        ListResponse { items }
    }

    /// Writes an event and returns its time. The key keeps the events of one item in order.
    async fn write(&self, id: &str, event: &impl Name) -> Result<i64, Status> {
        let event = Envelope::seal(event);
        let payload = Protobuf.encode(&event).map_err(|error| Status::internal(error.to_string()))?;
        let record = ProducerRecord::new(Arc::clone(&self.topic), id.to_owned(), payload);
        self.producer.send(record).await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(event.time_ms)
    }
}
