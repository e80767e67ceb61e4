//! TLS between the services: both sides show a certificate.

use super::{
    files::{self, Named},
    provider,
    reload::Reload,
};
use crate::Error;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{ServerName, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};
use std::{io, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How a service shows who it is to the others, and knows them. A clone shares what was read.
///
/// A service is known by its name, one of the DNS names of its certificate, and not by its address, which comes and goes with the
/// instance: who calls `db-service` takes nobody else's certificate. A server takes every certificate of the
/// authorities.
#[derive(Clone, Debug)]
pub struct MutualTls(Arc<Reload<Sides>>);

/// Both are made of the same files.
#[derive(Clone)]
struct Sides {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl MutualTls {
    /// As configured, for the service of this name; `None` for plain connections.
    ///
    /// # Errors
    /// Every fault of the files.
    pub fn new(config: &abi::config::Tls, service: &str) -> Result<Option<Self>, Error> {
        // That all three belong together has been checked with the rest of the configuration.
        if config.ca.is_empty() || config.certificate.is_empty() || config.key.is_empty() {
            return Ok(None);
        }
        let files = [
            Named::new("tls.ca", &config.ca),
            Named::new("tls.certificate", &config.certificate),
            Named::new("tls.key", &config.key),
        ];
        let (service, read) = (service.to_owned(), files.clone());
        let sides = Reload::new(files.to_vec(), move || sides(&read, &service));
        sides.map(|sides| Some(Self(Arc::new(sides)))).map_err(|faults| Error::Tls { faults })
    }

    /// What is wrong with the files, each a sentence with the key.
    pub fn config_errors(config: &abi::config::Tls, service: &str) -> Vec<String> {
        Error::tls_faults(Self::new(config, service))
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.0.current().server
    }

    /// Connects to an instance of a service.
    pub(crate) async fn connect(
        self,
        service: &'static str,
        address: Arc<str>,
    ) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(&*address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(service).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.0.current().client);
        Ok(TokioIo::new(connector.connect(name, stream).await?))
    }
}

/// Reads the files, and checks our own certificate as the others will.
fn sides([ca, certificate, key]: &[Named; 3], service: &str) -> Result<Sides, Vec<String>> {
    let (authorities, certified) = match (ca.authorities(), files::certified(certificate, key)) {
        (Ok(authorities), Ok(certified)) => (Arc::new(authorities), Arc::new(certified)),
        (authorities, certified) => {
            return Err(authorities.err().into_iter().chain(certified.err().into_iter().flatten()).collect());
        }
    };
    let of_ca =
        |error: rustls::server::VerifierBuilderError| vec![ca.fault(format_args!("can't be used: {error}"))];
    let of_certificate = |error| vec![certificate.fault(files::sentence(&error))];
    let clients = WebPkiClientVerifier::builder_with_provider(authorities.clone(), provider());
    let clients = clients.build().map_err(of_ca)?;
    let servers =
        WebPkiServerVerifier::builder_with_provider(authorities, provider()).build().map_err(of_ca)?;
    let name = ServerName::try_from(service.to_owned())
        .map_err(|_| vec![format!("tls.certificate: '{service}' can't be the name of a service")])?;
    let Some((first, rest)) = certified.cert.split_first() else { return Err(Vec::new()) };
    let now = UnixTime::now();
    servers.verify_server_cert(first, rest, &name, &[], now).map_err(of_certificate)?;
    clients.verify_client_cert(first, rest, now).map_err(of_certificate)?;

    let shown = Arc::new(SingleCertAndKey::from(certified));
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(of_certificate)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(shown.clone());
    // A resumed session is not checked against the authorities again.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(of_certificate)?
        .with_webpki_verifier(servers)
        .with_client_cert_resolver(shown);
    client.resumption = Resumption::disabled();
    for protocols in [&mut server.alpn_protocols, &mut client.alpn_protocols] {
        *protocols = vec![b"h2".to_vec()];
    }
    Ok(Sides { server: Arc::new(server), client: Arc::new(client) })
}
