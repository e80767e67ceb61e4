//! Whom a client believes.

use super::{files::Named, provider};
use crate::Error;
use rustls::{ClientConfig, RootCertStore};

/// A client's settings that take no server at all, for addresses without TLS.
pub fn nobody() -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has all versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// A client's settings that take servers whose certificate an authority in the file at `path` has signed, or without a path
/// one of the system's. `key` is the key of the configuration that names the file.
///
/// # Errors
/// What is wrong with the file, or that the system has no authorities.
pub fn trust(key: &'static str, path: &str) -> Result<ClientConfig, Error> {
    let fault = |fault| Error::Tls { faults: vec![fault] };
    let authorities = if path.is_empty() { system(key) } else { Named::new(key, path).authorities() };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(error.to_string()))?;
    Ok(config.with_root_certificates(authorities.map_err(fault)?).with_no_client_auth())
}

fn system(key: &'static str) -> Result<RootCertStore, String> {
    let mut authorities = RootCertStore::empty();
    let (added, _) = authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(format!(
            "{key}: the system has no certificate authorities; install them (ca-certificates), or name a PEM file here"
        ));
    }
    Ok(authorities)
}
