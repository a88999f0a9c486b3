//! TLS of the admin port, and certificates of its clients. Files that were renewed are taken up without a restart.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs as provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::fault::{Code, Fault};

/// How long files are believed.
const BELIEVED: Duration = Duration::from_secs(60);

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, those of its issuers behind it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that sign certificates of clients.
    pub client_authority: Option<PathBuf>,
}

/// TLS as set up; cloning shares it.
#[derive(Clone)]
pub struct AdminTls {
    files: TlsFiles,
    current: Arc<Mutex<(Instant, TlsAcceptor)>>,
}

impl std::fmt::Debug for AdminTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminTls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl AdminTls {
    /// Reads the files.
    ///
    /// Fails where one of them cannot be read, is no PEM, or does not belong to the others.
    pub fn new(files: TlsFiles) -> Result<AdminTls, Fault> {
        let acceptor = acceptor(&files)?;
        Ok(AdminTls { files, current: Arc::new(Mutex::new((Instant::now(), acceptor))) })
    }

    /// Certificates of clients count.
    pub(super) fn knows_clients(&self) -> bool {
        self.files.client_authority.is_some()
    }

    /// What takes the next connection. Files that have become unreadable leave the last good ones in force.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0.elapsed() >= BELIEVED {
            current.0 = Instant::now();
            match acceptor(&self.files) {
                Ok(acceptor) => current.1 = acceptor,
                Err(fault) => tracing::error!(%fault, "the admin port keeps its last certificate"),
            }
        }
        current.1.clone()
    }
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, Fault> {
    let certificates = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, error))?;
    let provider = Arc::new(provider::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&files.certificate, error))?;
    let builder = match &files.client_authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(path, error))?;
            }
            // Probes and metrics are for those without a certificate as well.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| wrong(path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(|error| wrong(&files.certificate, error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// All certificates of a file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| wrong(path, error))?;
    if certificates.is_empty() { Err(wrong(path, "there is no certificate in it")) } else { Ok(certificates) }
}

fn wrong(path: &Path, error: impl std::fmt::Display) -> Fault {
    Fault::ours(Code::FailedPrecondition, format!("`{}` cannot be used for TLS: {error}", path.display()))
}
