//! The network of one device: a TCP address that forwards to a random gateway while the device is online, and is cut while it
//! is offline. Like a load balancer, it may connect a returning device to another gateway.

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

/// Connect timeout, after which the next gateway is tried.
const CONNECT: Duration = Duration::from_secs(1);

/// A link that is up or down. It closes when it is dropped.
#[derive(Debug)]
pub(super) struct DeviceLink {
    address: String,
    up: watch::Sender<bool>,
}

impl DeviceLink {
    /// Opens a link to these gateways.
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

    /// The address for the device.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Takes the link down, which closes all connections, or up again.
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
            tasks.spawn(relay(device, Arc::clone(&gateways), Arc::clone(&random), up.clone()));
        }
    }
}

async fn relay(
    mut device: TcpStream,
    gateways: Arc<[String]>,
    random: Arc<Mutex<StdRng>>,
    mut up: watch::Receiver<bool>,
) {
    let relayed = async {
        let mut shuffled: Vec<&String> = gateways.iter().collect();
        shuffled.shuffle(&mut *random.lock().unwrap_or_else(PoisonError::into_inner));
        for address in shuffled {
            if let Ok(Ok(mut gateway)) = timeout(CONNECT, TcpStream::connect(address)).await {
                let _ = (device.set_nodelay(true), gateway.set_nodelay(true));
                let _ = copy_bidirectional(&mut device, &mut gateway).await;
                return;
            }
        }
    };
    tokio::select! {
        () = relayed => {}
        // The link is down or was dropped.
        _ = up.wait_for(|up| !*up) => {}
    }
}
