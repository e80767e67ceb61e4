//! TLS client settings: the authorities that a client trusts.

use super::{files::ConfiguredFile, provider};
use crate::Error;
use rustls::{ClientConfig, RootCertStore};

/// Client settings that accept no server, for addresses without TLS.
pub fn trust_nothing() -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider supports all versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// Client settings that trust the authorities in the file at `path`, or those of the system if `path` is empty. `key` is
/// the configuration key of the file.
///
/// # Errors
/// The file is not valid, or the system has no authorities.
pub fn trust_authorities(key: &'static str, path: &str) -> Result<ClientConfig, Error> {
    let tls_error = |error| Error::Tls { errors: vec![error] };
    let authorities =
        if path.is_empty() { system(key) } else { ConfiguredFile::new(key, path).authorities() };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_error(error.to_string()))?;
    Ok(config.with_root_certificates(authorities.map_err(tls_error)?).with_no_client_auth())
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
