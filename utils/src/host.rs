//! What the programs of the distributed mode have in common: a gRPC server that is found through discovery, the admin server,
//! and the lines that say where both are.

use crate::{
    Error, Phase, Shutdown, admin,
    discovery::{Discovery, Instance, Registrar},
    grpc::{self, Server},
    tls::MutualTls,
};
use axum::Router;
use std::{
    io::{self, Write as _},
    net::{SocketAddr, UdpSocket},
};
use tokio::net::TcpListener;
use tonic::service::Routes;

/// Bound listeners of a program, not serving yet.
#[derive(Debug)]
pub struct Host {
    grpc: TcpListener,
    admin: TcpListener,
    grpc_address: SocketAddr,
    admin_address: SocketAddr,
    advertised: String,
    operators: Router,
    tls: Option<MutualTls>,
}

impl Host {
    /// Binds. `advertise` is the `host:port` under which others reach gRPC; empty for the bound address, or for this machine's
    /// if that is every address.
    ///
    /// # Errors
    /// When an address can't be bound.
    pub async fn bind(grpc_listen: &str, advertise: &str, admin_listen: &str) -> Result<Self, Error> {
        let (grpc, admin) = (grpc::bind(grpc_listen).await?, grpc::bind(admin_listen).await?);
        let address = |listener: &TcpListener, address: &str| {
            listener.local_addr().map_err(|source| Error::Bind { address: address.into(), source })
        };
        let (grpc_address, admin_address) = (address(&grpc, grpc_listen)?, address(&admin, admin_listen)?);
        let advertised =
            if advertise.is_empty() { reachable(grpc_address).to_string() } else { advertise.into() };
        Ok(Self { grpc, admin, grpc_address, admin_address, advertised, operators: Router::new(), tls: None })
    }

    /// Adds something for operators to the admin port; see [`admin::require_operator`].
    #[must_use]
    pub fn operator_routes(mut self, routes: Router) -> Self {
        self.operators = routes;
        self
    }

    /// Serves gRPC over TLS, to peers that show a certificate.
    #[must_use]
    pub fn tls(mut self, tls: Option<MutualTls>) -> Self {
        self.tls = tls;
        self
    }

    /// `host:port` under which other services reach gRPC.
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    /// Serves the admin port from now on, so that a program that waits for a dependency can say for which. It is stopped last.
    /// Gives what is left to serve.
    pub fn serve_admin(self, shutdown: &Shutdown) -> GrpcHost {
        let stop = shutdown.token(Phase::Telemetry);
        let readiness = shutdown.readiness().clone();
        shutdown.tasks().spawn("admin", admin::serve(self.admin, readiness, self.operators, stop));
        announce(format_args!("admin on http://{}", self.admin_address));
        GrpcHost {
            listener: self.grpc,
            address: self.grpc_address,
            advertised: self.advertised,
            tls: self.tls,
        }
    }
}

/// Where others reach what listens there: who listens on every address is reached at the one that leads to others.
fn reachable(listens: SocketAddr) -> SocketAddr {
    if !listens.ip().is_unspecified() {
        return listens;
    }
    let own = || {
        // Nothing is sent: the system only looks up the way, here to addresses that documentation has for its examples.
        let (from, to) =
            if listens.is_ipv4() { ("0.0.0.0:0", "192.0.2.1:9") } else { ("[::]:0", "[2001:db8::1]:9") };
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok::<_, io::Error>(SocketAddr::new(socket.local_addr()?.ip(), listens.port()))
    };
    own().unwrap_or_else(|error| {
        tracing::warn!(%listens, %error, "it is not clear where others reach this program: set grpc_advertise");
        listens
    })
}

/// The bound gRPC listener of a program.
#[derive(Debug)]
pub struct GrpcHost {
    listener: TcpListener,
    address: SocketAddr,
    advertised: String,
    tls: Option<MutualTls>,
}

impl GrpcHost {
    /// Serves gRPC, with health and reflection, and registers the instance once it is ready.
    ///
    /// # Errors
    /// When the advertised address is not `host:port`.
    pub fn serve(
        self,
        service: &'static str,
        version: &str,
        routes: Routes,
        discovery: &Discovery,
        shutdown: &Shutdown,
    ) -> Result<(), Error> {
        let instance = Instance {
            service: service.into(),
            address: self.advertised,
            version: version.into(),
            zone: discovery.zone().into(),
            tls: self.tls.is_some(),
        };
        Registrar::new(discovery, instance)?.attach(shutdown);
        // Peers call until they have seen the deregistration, and what is in flight is finished before.
        let stop = shutdown.token(Phase::Pools);
        let server = Server::new(routes, abi::DESCRIPTORS, shutdown.readiness().clone()).tls(self.tls);
        shutdown.tasks().spawn_critical("grpc", server.serve(self.listener, stop));
        announce(format_args!("grpc on {}", self.address));
        Ok(())
    }
}

/// A line for whoever started the program. If nobody reads it, nothing is lost: the log says the same.
pub fn announce(line: std::fmt::Arguments<'_>) {
    tracing::info!(%line, "started");
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_never_told_to_connect_to_every_address() {
        let bound: SocketAddr = "10.1.2.3:7451".parse().unwrap();
        assert_eq!(reachable(bound), bound);
        let found = reachable("0.0.0.0:7451".parse().unwrap());
        let leads_out = UdpSocket::bind("0.0.0.0:0").unwrap().connect("192.0.2.1:9").is_ok();
        assert_eq!(found.port(), 7451);
        assert_ne!(found.ip().is_unspecified(), leads_out, "{found}");
    }
}
