//! Whose certificates are taken.

use crate::Error;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{
    io,
    path::Path,
    sync::{Arc, LazyLock},
};

/// The authorities that a server's certificate is checked against. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Those of the operating system, read once.
    pub fn system() -> Self {
        static SYSTEM: LazyLock<Trust> = LazyLock::new(|| {
            let mut authorities = RootCertStore::empty();
            // Without any, every server is refused, with a sentence that says what to do.
            authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Trust::new(authorities)
        });
        SYSTEM.clone()
    }

    /// Those of a PEM file, and no others.
    ///
    /// # Errors
    /// [`Error::Authorities`].
    pub fn file(path: &Path) -> Result<Self, Error> {
        let fault = |reason| Error::Authorities { path: path.display().to_string(), reason };
        let text = std::fs::read(path).map_err(|error| fault(format!("can't be read: {error}")))?;
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| fault(format!("is not PEM: {error}")))?;
            authorities
                .add(certificate)
                .map_err(|error| fault(format!("has a certificate that can't be used: {error}")))?;
        }
        if authorities.is_empty() {
            return Err(fault(
                "has no certificate; it must have one that begins with -----BEGIN CERTIFICATE-----".into(),
            ));
        }
        Ok(Self::new(authorities))
    }

    /// None at all: no server is taken.
    pub(crate) fn nobody() -> Self {
        Self::new(RootCertStore::empty())
    }

    fn new(authorities: RootCertStore) -> Self {
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("the provider has all versions")
            .with_root_certificates(authorities)
            .with_no_client_auth();
        Self(Arc::new(config))
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

/// A failed handshake in words that say what to do; `None` for what says so by itself.
pub(crate) fn explain(error: &io::Error) -> Option<io::Error> {
    let inner = error.get_ref()?;
    if let Some(wrapped) = inner.downcast_ref() {
        return explain(wrapped);
    }
    let reason = match inner.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate is signed by no authority that is known here; name the file of that authority (--ca)"
        }
        Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS; use http:// or another port",
        _ => return None,
    };
    Some(io::Error::new(error.kind(), reason))
}
