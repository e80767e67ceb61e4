//! TLS towards devices: the server shows a certificate.

use super::{
    files::{self, Named},
    handshake::accept,
    provider,
    reload::Reload,
};
use crate::Error;
use rustls::{ServerConfig, crypto::ring::Ticketer, sign::SingleCertAndKey};
use std::{io, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A certificate that is shown to whoever connects. A clone shares what was read.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<Reload<Arc<ServerConfig>>>);

impl ServerTls {
    /// As configured; `None` for plain connections.
    ///
    /// # Errors
    /// Every fault of the files.
    pub fn new(config: &abi::config::Gateway) -> Result<Option<Self>, Error> {
        crate::metrics::handshakes("gateway");
        if config.tls_certificate.is_empty() || config.tls_key.is_empty() {
            return Ok(None);
        }
        let certificate = Named::new("gateway.tls_certificate", &config.tls_certificate);
        let key = Named::new("gateway.tls_key", &config.tls_key);
        // Made once: sessions that began before the certificate changed can still be resumed.
        let tickets = Ticketer::new().map_err(|error| Error::Tls { faults: vec![error.to_string()] })?;
        let files = vec![certificate.clone(), key.clone()];
        let config = Reload::new(files, move || {
            let certified = files::certified(&certificate, &key)?;
            let mut config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| vec![certificate.fault(files::sentence(&error))])?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            // The session is with the device, in its ticket: nothing of it is kept here.
            config.ticketer = tickets.clone();
            config.send_tls13_tickets = 1;
            Ok(Arc::new(config))
        });
        config.map(|config| Some(Self(Arc::new(config)))).map_err(|faults| Error::Tls { faults })
    }

    /// What is wrong with the files, each a sentence with the key.
    pub fn config_errors(config: &abi::config::Gateway) -> Vec<String> {
        Error::tls_faults(Self::new(config))
    }

    /// The server's side of a handshake, within some seconds.
    ///
    /// # Errors
    /// When there is none: a peer that does not speak TLS, does not take our certificate, or is too slow.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let accepted = accept(self.0.current(), stream).await;
        if accepted.is_err() {
            crate::metrics::handshake_failed("gateway");
        }
        accepted
    }
}
