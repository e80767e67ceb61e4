//! The network of one device: a TCP address that leads to some gateway while the device is online, and is cut while it
//! is away. It stands for what is in front of gateways in the field: whoever connects again may come to another one.

use anyhow::Result;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_util::task::TaskTracker;

/// A gateway that takes no connection within this time is passed over.
const CONNECT: Duration = Duration::from_secs(1);

/// A line that is up or down. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Line {
    address: String,
    up: watch::Sender<bool>,
}

impl Line {
    /// A line to these gateways, up.
    pub(super) async fn open(gateways: Arc<[String]>, seed: u64, tasks: &TaskTracker) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (up, state) = watch::channel(true);
        tasks.spawn(accept(
            listener,
            gateways,
            Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            state,
            tasks.clone(),
        ));
        Ok(Self { address, up })
    }

    /// Where the device connects to.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Cuts all connections and takes none, or takes them again.
    pub(super) fn set(&self, up: bool) {
        self.up.send_replace(up);
    }
}

async fn accept(
    listener: TcpListener,
    gateways: Arc<[String]>,
    random: Arc<Mutex<StdRng>>,
    mut up: watch::Receiver<bool>,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            changed = up.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok((device, _)) = accepted else { continue };
        if *up.borrow_and_update() {
            tasks.spawn(carry(device, Arc::clone(&gateways), Arc::clone(&random), up.clone()));
        }
    }
}

async fn carry(
    mut device: TcpStream,
    gateways: Arc<[String]>,
    random: Arc<Mutex<StdRng>>,
    mut up: watch::Receiver<bool>,
) {
    let carried = async {
        let mut order: Vec<&String> = gateways.iter().collect();
        order.shuffle(&mut *random.lock().unwrap_or_else(PoisonError::into_inner));
        for address in order {
            if let Ok(Ok(mut gateway)) = timeout(CONNECT, TcpStream::connect(address)).await {
                let _ = (device.set_nodelay(true), gateway.set_nodelay(true));
                let _ = copy_bidirectional(&mut device, &mut gateway).await;
                return;
            }
        }
    };
    tokio::select! {
        () = carried => {}
        // Down, or dropped.
        _ = up.wait_for(|up| !*up) => {}
    }
}
