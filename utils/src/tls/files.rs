//! Reading PEM files, with precise error messages.

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

/// A file that the configuration names.
#[derive(Clone, Debug)]
pub(super) struct ConfiguredFile {
    /// The configuration key.
    pub(super) key: &'static str,
    pub(super) path: PathBuf,
}

impl ConfiguredFile {
    pub(super) fn new(key: &'static str, path: &str) -> Self {
        Self { key, path: path.into() }
    }

    /// A config error about this file; `problem` is the end of the sentence.
    pub(super) fn error(&self, problem: impl std::fmt::Display) -> String {
        format!("{}: {} {problem}", self.key, self.path.display())
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        std::fs::read(&self.path).map_err(|error| {
            self.error(format_args!("cannot be read: {error}; name a PEM file that this program may read"))
        })
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let text = self.read()?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|error| self.error(format_args!("is not PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(self
                .error("has no certificate; it must have one that begins with -----BEGIN CERTIFICATE-----"));
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
        PrivateKeyDer::from_pem_slice(&self.read()?).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                self.error("has no key; it must have one that begins with -----BEGIN PRIVATE KEY----- and has no password")
            }
            error => self.error(format_args!("is not PEM: {error}")),
        })
    }

    /// The CA certificates in the file.
    pub(super) fn authorities(&self) -> Result<RootCertStore, String> {
        let mut authorities = RootCertStore::empty();
        for (certificate, number) in self.certificates()?.into_iter().zip(1..) {
            authorities.add(certificate).map_err(|error| {
                self.error(format_args!("has a certificate that cannot be used, number {number}: {error}"))
            })?;
        }
        Ok(authorities)
    }
}

/// Loads a certificate with its chain and its key. Checks that the key matches and that the certificate is valid now.
pub(super) fn load_certified_key(
    certificate: &ConfiguredFile,
    key: &ConfiguredFile,
) -> Result<CertifiedKey, Vec<String>> {
    let (chain, private) = match (certificate.certificates(), key.private_key()) {
        (Ok(chain), Ok(private)) => (chain, private),
        (chain, private) => return Err(chain.err().into_iter().chain(private.err()).collect()),
    };
    let mut errors = Vec::new();
    if let Err(error) = check_validity_period(&chain) {
        errors.push(certificate.error(problem(&error)));
    }
    match CertifiedKey::from_der(chain, private, &provider()) {
        Ok(certified) if errors.is_empty() => return Ok(certified),
        Ok(_) => {}
        Err(Error::InconsistentKeys(_)) => errors.push(key.error(format_args!(
            "is not the key of the certificate in {}; use the two that were issued together",
            certificate.path.display()
        ))),
        Err(error) => errors.push(key.error(format_args!("has a key that cannot be used: {error}"))),
    }
    Err(errors)
}

/// Checks that a certificate is valid now. The verifier checks the period before the issuer, so it needs no authority.
fn check_validity_period(chain: &[CertificateDer<'_>]) -> Result<(), Error> {
    let Some((first, rest)) = chain.split_first() else { return Ok(()) };
    let parsed = ParsedCertificate::try_from(first)?;
    let algorithms = provider().signature_verification_algorithms.all;
    let none = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&parsed, &none, rest, UnixTime::now(), algorithms) {
        Err(error) if is_outside_validity_period(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_outside_validity_period(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        error,
        Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
    )
}

/// Describes a certificate error as the end of a sentence about its file.
pub(super) fn problem(error: &Error) -> String {
    let Error::InvalidCertificate(error) = error else { return format!("cannot be used: {error}") };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("has expired at {}; renew it", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("is not valid before {}; wait, or correct the clock", date(*not_before))
        }
        CertificateError::UnknownIssuer => {
            "is not signed by an authority of tls.ca, so the other services would refuse it; have it issued by one".into()
        }
        CertificateError::NotValidForNameContext { expected, .. } => {
            format!("is not for the DNS name '{}'; issue it with that name", expected.to_str())
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "must be usable by both servers and clients; issue it with both extended key usages, or without any".into()
        }
        error => format!("cannot be used: {error}"),
    }
}

fn date(time: UnixTime) -> humantime::Rfc3339Timestamp {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    humantime::format_rfc3339_seconds(time.unwrap_or(SystemTime::UNIX_EPOCH))
}
