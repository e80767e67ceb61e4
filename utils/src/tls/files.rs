//! PEM files, and what can be wrong with them.

use super::provider;
use rustls::{
    CertificateError, Error, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// A file, and the key of the configuration that names it.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) key: &'static str,
    pub(super) path: PathBuf,
}

impl Named {
    pub(super) fn new(key: &'static str, path: &str) -> Self {
        Self { key, path: path.into() }
    }

    /// A sentence about this file.
    pub(super) fn fault(&self, what: impl std::fmt::Display) -> String {
        format!("{}: {} {what}", self.key, self.path.display())
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        std::fs::read(&self.path).map_err(|error| {
            self.fault(format_args!("can't be read: {error}; name a PEM file that this program may read"))
        })
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let text = self.read()?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|error| self.fault(format_args!("is not PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(self
                .fault("has no certificate; it must have one that begins with -----BEGIN CERTIFICATE-----"));
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
        PrivateKeyDer::from_pem_slice(&self.read()?).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                self.fault("has no key; it must have one that begins with -----BEGIN PRIVATE KEY----- and has no password")
            }
            error => self.fault(format_args!("is not PEM: {error}")),
        })
    }

    /// The authorities in it.
    pub(super) fn authorities(&self) -> Result<RootCertStore, String> {
        let mut authorities = RootCertStore::empty();
        for (certificate, number) in self.certificates()?.into_iter().zip(1..) {
            authorities.add(certificate).map_err(|error| {
                self.fault(format_args!("has a certificate that can't be used, number {number}: {error}"))
            })?;
        }
        Ok(authorities)
    }
}

/// A certificate with its chain and its key: they belong together, and now is within its time.
pub(super) fn certified(certificate: &Named, key: &Named) -> Result<CertifiedKey, Vec<String>> {
    let (chain, private) = match (certificate.certificates(), key.private_key()) {
        (Ok(chain), Ok(private)) => (chain, private),
        (chain, private) => return Err(chain.err().into_iter().chain(private.err()).collect()),
    };
    let mut faults = Vec::new();
    if let Err(error) = in_time(&chain) {
        faults.push(certificate.fault(sentence(&error)));
    }
    match CertifiedKey::from_der(chain, private, &provider()) {
        Ok(certified) if faults.is_empty() => return Ok(certified),
        Ok(_) => {}
        Err(Error::InconsistentKeys(_)) => faults.push(key.fault(format_args!(
            "is not the key of the certificate in {}; take the two that were issued together",
            certificate.path.display()
        ))),
        Err(error) => faults.push(key.fault(format_args!("has a key that can't be used: {error}"))),
    }
    Err(faults)
}

/// Whether now is within the time of a certificate. No authority is asked: the time is checked before those.
fn in_time(chain: &[CertificateDer<'_>]) -> Result<(), Error> {
    let Some((first, rest)) = chain.split_first() else { return Ok(()) };
    let parsed = ParsedCertificate::try_from(first)?;
    let algorithms = provider().signature_verification_algorithms.all;
    let none = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&parsed, &none, rest, UnixTime::now(), algorithms) {
        Err(error) if is_of_time(&error) => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn is_of_time(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        error,
        Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
    )
}

/// What is wrong with a certificate, as the end of a sentence about its file.
pub(super) fn sentence(error: &Error) -> String {
    let Error::InvalidCertificate(error) = error else { return format!("can't be used: {error}") };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("has expired at {}; renew it", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("is not valid before {}; wait, or set the clock right", date(*not_before))
        }
        CertificateError::UnknownIssuer => {
            "is not signed by an authority of tls.ca, so that the other services would refuse it; have it issued by one".into()
        }
        CertificateError::NotValidForNameContext { expected, .. } => {
            format!("is not for the DNS name '{}'; issue it with that name", expected.to_str())
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "may not be used by both servers and clients; issue it with both in its extended key usage, or without one".into()
        }
        error => format!("can't be used: {error}"),
    }
}

fn date(time: UnixTime) -> humantime::Rfc3339Timestamp {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    humantime::format_rfc3339_seconds(time.unwrap_or(SystemTime::UNIX_EPOCH))
}
