//! Certificate authorities and certificates for tests, of this crate and of others.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// A certificate authority. It writes all its files to one folder.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    /// Path of its own certificate.
    pub ca: String,
}

/// The validity period of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Valid now and in the years to come.
    Current,
    /// Valid now, and for this many seconds.
    Seconds(u64),
    /// Valid until 2001.
    Expired,
}

/// Paths of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// Creates an authority and writes its certificate to `NAME.pem` in the folder.
    ///
    /// # Panics
    /// The file can't be written.
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("the crypto provider generates keys");
        let certificate = params.self_signed(&key).expect("it can be signed");
        let ca = write(folder, &format!("{name}.pem"), "CERTIFICATE", certificate.der());
        Self { issuer: Issuer::new(params, key), folder: folder.to_owned(), ca }
    }

    /// Issues a certificate for these DNS names or addresses. The first one names the files; existing files are
    /// replaced.
    ///
    /// # Panics
    /// The files can't be written, or a name is not valid.
    pub fn issue(&self, names: &[&str], validity: Validity) -> Files {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let file = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names).expect("the names are valid");
        params.distinguished_name.push(rcgen::DnType::CommonName, &file);
        match validity {
            Validity::Current => {}
            Validity::Seconds(left) => {
                params.not_after = (SystemTime::now() + Duration::from_secs(left)).into()
            }
            Validity::Expired => {
                (params.not_before, params.not_after) =
                    (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
            }
        }
        let key = KeyPair::generate().expect("the crypto provider generates keys");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        Files {
            certificate: write(&self.folder, &format!("{file}.pem"), "CERTIFICATE", certificate.der()),
            key: write(&self.folder, &format!("{file}.key"), "PRIVATE KEY", key.serialized_der()),
        }
    }
}

/// Writes a PEM file and returns its path.
fn write(folder: &Path, name: &str, label: &str, content: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(content);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let path = folder.join(name);
    let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"));
    std::fs::write(&path, pem).expect("the folder is writable");
    path.to_string_lossy().into_owned()
}
