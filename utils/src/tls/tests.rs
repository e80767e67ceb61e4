use super::*;
use crate::{
    Channel, Readiness,
    certificates::{Authority, Files, Validity},
    discovery::Instances,
    grpc::{self, KeyedPool, Server, balanced},
    testing::eventually,
};
use abi::config::Tls;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::{Code, service::Routes};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

fn config(authority: &Authority, files: &Files) -> Tls {
    Tls { ca: authority.ca.clone(), certificate: files.certificate.clone(), key: files.key.clone() }
}

fn mutual(authority: &Authority, service: &str) -> Option<MutualTls> {
    MutualTls::new(&config(authority, &authority.issue(&[service], Validity::Current)), service).unwrap()
}

/// Starts a gRPC health server. It stops when the set is dropped.
async fn serve(tls: Option<MutualTls>) -> (SocketAddr, JoinSet<()>) {
    let listener = crate::listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut served = JoinSet::new();
    let server = Server::new(Routes::default(), &[], Readiness::new()).tls(tls);
    served.spawn(async move { server.serve(listener, CancellationToken::new()).await.unwrap() });
    (address, served)
}

fn channel(service: &'static str, address: SocketAddr, tls: Option<MutualTls>) -> Channel {
    let options = grpc::Options { tls, tries: 1, ..grpc::Options::default() };
    balanced(service, Instances::fixed([address.to_string()]), options)
}

async fn check(channel: Channel) -> Result<(), tonic::Status> {
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(|_| ())
}

/// Connects as a peer that does not verify its own certificate first. The error is the server's refusal.
async fn connect(address: SocketAddr, authority: &Authority, own: Option<&Files>) -> std::io::Result<usize> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&authority.ca).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("db-service").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    // With TLS 1.3 a client learns only after its handshake whether the server accepted its certificate.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    stream.read(&mut [0; 64]).await
}

#[tokio::test]
async fn p8_services_accept_certificates_of_their_authority() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let (address, _served) = serve(mutual(&ours, "db-service")).await;
    check(channel("db-service", address, mutual(&ours, "consumer"))).await.unwrap();
    let pool = KeyedPool::new("db-service", Duration::from_secs(2), Duration::from_secs(60), 10)
        .tls(mutual(&ours, "pusher"));
    check(pool.get(&address.to_string())).await.unwrap();
    assert!(connect(address, &ours, Some(&ours.issue(&["anybody"], Validity::Current))).await.unwrap() > 0);
}

#[tokio::test]
async fn p8_a_foreign_an_expired_and_a_missing_client_certificate_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let (address, _served) = serve(mutual(&ours, "db-service")).await;
    for (own, refusal) in [
        (Some(theirs.issue(&["stranger"], Validity::Current)), "UnknownCA"),
        (Some(ours.issue(&["consumer"], Validity::Expired)), "Expired"),
        (None, "CertificateRequired"),
    ] {
        let error = connect(address, &ours, own.as_ref()).await.unwrap_err().to_string();
        assert!(error.contains(refusal), "{error} is not {refusal}");
    }
    let plain = check(channel("db-service", address, None)).await.unwrap_err();
    assert_eq!(plain.code(), Code::Unavailable, "{plain}");
}

#[tokio::test]
async fn p8_a_foreign_an_expired_and_a_missing_server_certificate_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let caller = mutual(&ours, "consumer");
    // Our authority but another service; then the right name from a foreign authority; then no TLS.
    for (tls, refusal) in [
        (mutual(&ours, "pusher"), "not valid for name \"db-service\""),
        (mutual(&theirs, "db-service"), "UnknownIssuer"),
        (None, "InvalidContentType"),
    ] {
        let (address, _served) = serve(tls).await;
        let refused = check(channel("db-service", address, caller.clone())).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains(refusal), "{refused}");
    }
    let (listener, past) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), ours.issue(&["db-service"], Validity::Expired));
    let address = listener.local_addr().unwrap();
    let mut served = JoinSet::new();
    served.spawn(async move { serve_unchecked(listener, &past).await });
    let refused = check(channel("db-service", address, caller)).await.unwrap_err();
    assert!(refused.message().contains("expired"), "{refused}");
}

/// Performs one handshake with a certificate that [`MutualTls`] would refuse to load.
async fn serve_unchecked(listener: TcpListener, files: &Files) {
    let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (stream, _) = listener.accept().await.unwrap();
    let _ = handshake::accept(Arc::new(config), stream).await;
}

#[tokio::test]
async fn p7_silent_peers_do_not_delay_other_handshakes() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let (address, _served) = serve(mutual(&ours, "db-service")).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    check(channel("db-service", address, mutual(&ours, "consumer"))).await.unwrap();
}

#[tokio::test]
async fn p9_new_certificates_and_a_new_authority_are_loaded_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let old = Authority::new(folder.path(), "old");
    let (server, caller) = (mutual(&old, "db-service"), mutual(&old, "consumer"));
    let (address, _served) = serve(server.clone()).await;
    check(channel("db-service", address, caller.clone())).await.unwrap();

    // Replace the certificate but not yet its key: the last valid files stay in use.
    let newer = tempfile::tempdir().unwrap();
    let new = Authority::new(newer.path(), "new");
    let (of_db, of_consumer) =
        (new.issue(&["db-service"], Validity::Current), new.issue(&["consumer"], Validity::Current));
    let replace = |path: &str| {
        let name = Path::new(path).file_name().unwrap();
        std::fs::copy(path, folder.path().join(name)).unwrap();
    };
    replace(&of_db.certificate);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    check(channel("db-service", address, caller.clone())).await.unwrap();

    std::fs::copy(&new.ca, &old.ca).unwrap();
    [of_db.key, of_consumer.certificate, of_consumer.key].iter().for_each(|path| replace(path));
    eventually(async || {
        connect(address, &new, Some(&new.issue(&["x"], Validity::Current))).await.is_ok_and(|n| n > 0)
    })
    .await;
    eventually(async || check(channel("db-service", address, caller.clone())).await.is_ok()).await;
    connect(address, &old, Some(&old.issue(&["y"], Validity::Current))).await.unwrap_err();
}

#[test]
fn errors_in_tls_files_name_the_key_the_file_and_the_problem() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let good = ours.issue(&["db-service"], Validity::Current);
    let no_pem = folder.path().join("no.pem").to_string_lossy().into_owned();
    std::fs::write(&no_pem, "hello").unwrap();
    let past = ours.issue(&["past", "db-service"], Validity::Expired);
    let strange = theirs.issue(&["strange", "db-service"], Validity::Current);
    let other = ours.issue(&["pusher"], Validity::Current);
    let tls = |ca: &str, certificate: &str, key: &str| Tls {
        ca: ca.into(),
        certificate: certificate.into(),
        key: key.into(),
    };
    let cases = [
        (tls(&ours.ca, &good.certificate, &good.key), vec![]),
        (tls("", "", ""), vec![]),
        (
            tls("/nonexistent/ca.pem", "/nonexistent/cert.pem", &no_pem),
            vec![
                "tls.ca: /nonexistent/ca.pem cannot be read: No such file",
                "tls.certificate: /nonexistent/cert.pem cannot be read: No such file",
                "no.pem has no key; it must have one that begins with -----BEGIN PRIVATE KEY-----",
            ],
        ),
        (
            tls(&no_pem, &no_pem, &good.key),
            vec![
                "tls.ca: ",
                "no.pem has no certificate; it must have one that begins with -----BEGIN CERTIFICATE-----",
            ],
        ),
        (
            tls(&ours.ca, &good.certificate, &other.key),
            vec!["pusher.key is not the key of the certificate in "],
        ),
        (
            tls(&ours.ca, &past.certificate, &past.key),
            vec!["past.pem has expired at 2001-01-01T00:00:00Z; renew it"],
        ),
        (tls(&ours.ca, &strange.certificate, &strange.key), vec!["is not signed by an authority of tls.ca"]),
        (tls(&ours.ca, &other.certificate, &other.key), vec!["is not for the DNS name 'db-service'"]),
    ];
    for (config, wanted) in cases {
        let errors = MutualTls::config_errors(&config, "db-service");
        assert_eq!(errors.is_empty(), wanted.is_empty(), "{errors:?}");
        let text = errors.join("\n");
        for sentence in wanted {
            assert!(text.contains(sentence), "{sentence} is not in {text}");
        }
    }
    let gateway = abi::config::Gateway {
        tls_certificate: past.certificate,
        tls_key: good.key,
        ..abi::config::Gateway::default()
    };
    let errors = ServerTls::config_errors(&gateway);
    assert_eq!(errors.len(), 2, "an expired certificate and a key of another: {errors:?}");
    assert!(trust_authorities("redis.ca", &no_pem).unwrap_err().to_string().starts_with("redis.ca: "));
}
