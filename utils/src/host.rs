//! The frame of a service in distributed mode: a gRPC server that registers with discovery, the admin server, and the
//! startup lines that print both addresses.

use crate::{
    Error, Phase, Shutdown, admin,
    discovery::{Discovery, Instance, Registrar},
    grpc::Server,
    listener::bind,
    tls::MutualTls,
};
use axum::Router;
use std::{
    io::{self, Write as _},
    net::{SocketAddr, UdpSocket},
};
use tokio::net::TcpListener;
use tonic::service::Routes;

/// The bound listeners of a program, before they serve.
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
    /// Binds both listeners. `advertise` is the `host:port` that other services connect to. If it is empty, the bound
    /// address is advertised; an unspecified one is replaced by the address of this machine.
    ///
    /// # Errors
    /// An address can't be bound.
    pub async fn bind(grpc_listen: &str, advertise: &str, admin_listen: &str) -> Result<Self, Error> {
        let (grpc, admin) = (bind(grpc_listen).await?, bind(admin_listen).await?);
        let address = |listener: &TcpListener, address: &str| {
            listener.local_addr().map_err(|source| Error::Bind { address: address.into(), source })
        };
        let (grpc_address, admin_address) = (address(&grpc, grpc_listen)?, address(&admin, admin_listen)?);
        let advertised =
            if advertise.is_empty() { reachable(grpc_address).to_string() } else { advertise.into() };
        Ok(Self { grpc, admin, grpc_address, admin_address, advertised, operators: Router::new(), tls: None })
    }

    /// Adds routes to the admin server; see [`admin::require_operator`].
    #[must_use]
    pub fn operator_routes(mut self, routes: Router) -> Self {
        self.operators = routes;
        self
    }

    /// Serves gRPC over mutual TLS.
    #[must_use]
    pub fn tls(mut self, tls: Option<MutualTls>) -> Self {
        self.tls = tls;
        self
    }

    /// The address advertised to other services, `host:port`.
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    /// Starts the admin server, which stops last. Start it before the dependencies are ready: `/readyz` then names the
    /// missing ones. Returns the gRPC part.
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

/// The address to advertise for a bound listener. An unspecified address is replaced by this machine's address on the
/// default route. A listener on `[::]` accepts both families; IPv4 is preferred because more machines have a route for it.
fn reachable(bound: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    // No packet is sent: connecting a UDP socket only selects the route. The targets are documentation addresses.
    let on_route = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok::<_, io::Error>(SocketAddr::new(socket.local_addr()?.ip(), bound.port()))
    };
    let ipv4 = on_route("0.0.0.0:0", "192.0.2.1:9");
    let found = if bound.is_ipv4() { ipv4 } else { ipv4.or_else(|_| on_route("[::]:0", "[2001:db8::1]:9")) };
    found.unwrap_or_else(|error| {
        tracing::warn!(%bound, %error, "cannot determine the address to advertise: set grpc_advertise");
        bound
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
    /// Serves gRPC with health and reflection, and registers the instance once it is ready.
    ///
    /// # Errors
    /// The advertised address is not `host:port`.
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
        // Stop late: peers keep calling until they have seen the deregistration, and calls in flight finish first.
        let stop = shutdown.token(Phase::Pools);
        let server = Server::new(routes, abi::DESCRIPTORS, shutdown.readiness().clone()).tls(self.tls);
        shutdown.tasks().spawn_critical("grpc", server.serve(self.listener, stop));
        announce(format_args!("grpc on {}", self.address));
        Ok(())
    }
}

/// Prints a startup line to standard output and logs it. The line may get lost if standard output is closed.
pub fn announce(line: std::fmt::Arguments<'_>) {
    tracing::info!(%line, "started");
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_never_advertised() {
        let bound: SocketAddr = "10.1.2.3:7451".parse().unwrap();
        assert_eq!(reachable(bound), bound);
        let has_route = UdpSocket::bind("0.0.0.0:0").unwrap().connect("192.0.2.1:9").is_ok();
        for listen in ["0.0.0.0:7451", "[::]:7451"] {
            let found = reachable(listen.parse().unwrap());
            assert_eq!(found.port(), 7451);
            assert!(!has_route || (!found.ip().is_unspecified() && found.is_ipv4()), "{listen}: {found}");
        }
    }
}
