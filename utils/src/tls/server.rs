//! TLS towards devices: only the server presents a certificate.

use super::{
    files::{self, ConfiguredFile},
    handshake::accept,
    provider,
    reload::Reload,
};
use crate::Error;
use rustls::{ServerConfig, crypto::aws_lc_rs::Ticketer, sign::SingleCertAndKey};
use std::{io, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The certificate of the gateway. Clones share the loaded files.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<Reload<Arc<ServerConfig>>>);

impl ServerTls {
    /// Loads the configured files. Returns `None` if TLS is not configured.
    ///
    /// # Errors
    /// All config errors of the files.
    pub fn new(config: &abi::config::Gateway) -> Result<Option<Self>, Error> {
        crate::metrics::handshakes("gateway");
        if config.tls_certificate.is_empty() || config.tls_key.is_empty() {
            return Ok(None);
        }
        let certificate = ConfiguredFile::new("gateway.tls_certificate", &config.tls_certificate);
        let key = ConfiguredFile::new("gateway.tls_key", &config.tls_key);
        // One ticket key for all reloads: TLS sessions from before a certificate change can still be resumed.
        let tickets = Ticketer::new().map_err(|error| Error::Tls { errors: vec![error.to_string()] })?;
        let files = vec![certificate.clone(), key.clone()];
        let config = Reload::new(files, move || {
            let certified = files::load_certified_key(&certificate, &key)?;
            let mut config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| vec![certificate.error(files::problem(&error))])?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            // The device keeps the TLS session in its ticket; the server stores none.
            config.ticketer = tickets.clone();
            config.send_tls13_tickets = 1;
            Ok(Arc::new(config))
        });
        config.map(|config| Some(Self(Arc::new(config)))).map_err(|errors| Error::Tls { errors })
    }

    /// All config errors of the files; each sentence begins with its configuration key.
    pub fn config_errors(config: &abi::config::Gateway) -> Vec<String> {
        Error::tls_config_errors(Self::new(config))
    }

    /// Performs the server side of a handshake, with a timeout.
    ///
    /// # Errors
    /// The handshake failed: the peer does not speak TLS, rejects our certificate, or is too slow.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let accepted = accept(self.0.current(), stream).await;
        if accepted.is_err() {
            crate::metrics::handshake_failed("gateway");
        }
        accepted
    }
}
