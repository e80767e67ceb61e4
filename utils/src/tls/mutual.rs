//! Mutual TLS between the services: both sides present a certificate.

use super::{
    files::{self, ConfiguredFile},
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

/// The certificate of this service and the authorities that it trusts. Clones share the loaded files.
///
/// A client identifies a service by its name, which must be a DNS name of the certificate: a caller of `db-service`
/// accepts no other certificate. Addresses can't identify a service because they change with its instances. A server
/// accepts every certificate that its authorities have issued.
#[derive(Clone, Debug)]
pub struct MutualTls(Arc<Reload<Configs>>);

/// Server and client settings from the same files.
#[derive(Clone)]
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl MutualTls {
    /// Loads the configured files for the service of this name. Returns `None` if TLS is not configured.
    ///
    /// # Errors
    /// All config errors of the files.
    pub fn new(config: &abi::config::Tls, service: &str) -> Result<Option<Self>, Error> {
        // The configuration's validation has checked that all three are set or none.
        if config.ca.is_empty() || config.certificate.is_empty() || config.key.is_empty() {
            return Ok(None);
        }
        let files = [
            ConfiguredFile::new("tls.ca", &config.ca),
            ConfiguredFile::new("tls.certificate", &config.certificate),
            ConfiguredFile::new("tls.key", &config.key),
        ];
        let (service, sources) = (service.to_owned(), files.clone());
        let configs = Reload::new(files.to_vec(), move || load(&sources, &service));
        configs.map(|configs| Some(Self(Arc::new(configs)))).map_err(|errors| Error::Tls { errors })
    }

    /// All config errors of the files; each sentence begins with its configuration key.
    pub fn config_errors(config: &abi::config::Tls, service: &str) -> Vec<String> {
        Error::tls_config_errors(Self::new(config, service))
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

/// Loads the files, and verifies our own certificate with the same checks that peers will make.
fn load([ca, certificate, key]: &[ConfiguredFile; 3], service: &str) -> Result<Configs, Vec<String>> {
    let (authorities, certified) = match (ca.authorities(), files::load_certified_key(certificate, key)) {
        (Ok(authorities), Ok(certified)) => (Arc::new(authorities), Arc::new(certified)),
        (authorities, certified) => {
            return Err(authorities.err().into_iter().chain(certified.err().into_iter().flatten()).collect());
        }
    };
    let ca_error =
        |error: rustls::server::VerifierBuilderError| vec![ca.error(format_args!("cannot be used: {error}"))];
    let certificate_error = |error| vec![certificate.error(files::problem(&error))];
    let clients = WebPkiClientVerifier::builder_with_provider(authorities.clone(), provider());
    let clients = clients.build().map_err(ca_error)?;
    let servers =
        WebPkiServerVerifier::builder_with_provider(authorities, provider()).build().map_err(ca_error)?;
    let name = ServerName::try_from(service.to_owned())
        .map_err(|_| vec![format!("tls.certificate: the service name '{service}' is not a DNS name")])?;
    let Some((first, rest)) = certified.cert.split_first() else { return Err(Vec::new()) };
    let now = UnixTime::now();
    servers.verify_server_cert(first, rest, &name, &[], now).map_err(certificate_error)?;
    clients.verify_client_cert(first, rest, now).map_err(certificate_error)?;

    let resolver = Arc::new(SingleCertAndKey::from(certified));
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(certificate_error)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(resolver.clone());
    // No session resumption: a resumed session is not verified against the authorities again.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(certificate_error)?
        .with_webpki_verifier(servers)
        .with_client_cert_resolver(resolver);
    client.resumption = Resumption::disabled();
    for protocols in [&mut server.alpn_protocols, &mut client.alpn_protocols] {
        *protocols = vec![b"h2".to_vec()];
    }
    Ok(Configs { server: Arc::new(server), client: Arc::new(client) })
}
