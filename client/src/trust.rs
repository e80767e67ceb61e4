//! Trusted certificate authorities.

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

/// The authorities that may sign a server's certificate. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// The authorities of the operating system, read once.
    pub fn system() -> Self {
        static SYSTEM: LazyLock<Trust> = LazyLock::new(|| {
            let mut authorities = RootCertStore::empty();
            // If the system has none, the handshake fails with an error that names --ca.
            authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Trust::new(authorities)
        });
        SYSTEM.clone()
    }

    /// Only the authorities in a PEM file.
    ///
    /// # Errors
    /// [`Error::Authorities`].
    pub fn file(path: &Path) -> Result<Self, Error> {
        let unusable = |reason| Error::Authorities { path: path.display().to_string(), reason };
        let text = std::fs::read(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| unusable(format!("is not PEM: {error}")))?;
            authorities
                .add(certificate)
                .map_err(|error| unusable(format!("has an invalid certificate: {error}")))?;
        }
        if authorities.is_empty() {
            return Err(unusable(
                "has no certificate; it must have one that begins with -----BEGIN CERTIFICATE-----".into(),
            ));
        }
        Ok(Self::new(authorities))
    }

    /// No authority: every handshake fails.
    pub(crate) fn none() -> Self {
        Self::new(RootCertStore::empty())
    }

    fn new(authorities: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
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

/// Replaces the error of a failed handshake by one that says what to do; `None` if it already does.
pub(crate) fn explain(error: &io::Error) -> Option<io::Error> {
    let inner = error.get_ref()?;
    if let Some(wrapped) = inner.downcast_ref() {
        return explain(wrapped);
    }
    let reason = match inner.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "no known authority has signed its certificate; name the file of that authority (--ca)"
        }
        Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS; use http:// or another port",
        _ => return None,
    };
    Some(io::Error::new(error.kind(), reason))
}
