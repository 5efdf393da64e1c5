//! Certificate authorities: made once, kept as two files, issuing short-lived identities.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::{Error, Identity};

/// How long an authority lives: ten years.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates are valid from a little before now, for machines whose clocks differ.
const BACKDATING: Duration = Duration::from_secs(300);

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
    Both,
}

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The user name: `system:node:n1`.
    pub common_name: String,
    /// The groups: `system:nodes`.
    pub organizations: Vec<String>,
    /// DNS names and IP addresses a server answers under.
    pub names: Vec<String>,
    pub usage: Usage,
}

impl Subject {
    pub fn client(common_name: impl Into<String>, organizations: &[&str]) -> Self {
        let organizations = organizations.iter().map(|&name| name.to_owned()).collect();
        Self { common_name: common_name.into(), organizations, names: Vec::new(), usage: Usage::Client }
    }

    pub fn server(common_name: impl Into<String>, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        Self { common_name: common_name.into(), organizations: Vec::new(), names, usage: Usage::Server }
    }
}

/// A certificate authority with its key.
pub struct Ca {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Reads the authority `<name>.crt` / `<name>.key` from a directory, or makes it there.
    ///
    /// # Errors
    /// Where the files cannot be read or written, or do not hold a certificate and its key.
    pub fn load_or_create(directory: &Path, name: &str, common_name: &str) -> Result<Self, Error> {
        let (cert, key) = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
        if !cert.exists() {
            let made = Self::generate(common_name)?;
            fs::create_dir_all(directory).map_err(|source| file("make the directory", directory, source))?;
            // The key first: a certificate without its key would be taken for a complete authority.
            write_private(&key, &made.key_pem)?;
            write_private(&cert, &made.cert_pem)?;
        }
        let cert_pem = fs::read_to_string(&cert).map_err(|source| file("read", &cert, source))?;
        let key_pem = fs::read_to_string(&key).map_err(|source| file("read", &key, source))?;
        Self::from_pem(&cert_pem, &key_pem)
    }

    /// An authority that lives in memory only.
    ///
    /// # Errors
    /// Where the machine has no randomness to give.
    pub fn create(common_name: &str) -> Result<Self, Error> {
        let made = Self::generate(common_name)?;
        Self::from_pem(&made.cert_pem, &made.key_pem)
    }

    /// The authority's certificate, for those who verify what it issued.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Issues an identity.
    ///
    /// # Errors
    /// Where a name is neither a DNS name nor an address.
    pub fn issue(&self, subject: &Subject, lifetime: Duration) -> Result<Identity, Error> {
        let failed = |source| Error::Issue { subject: subject.common_name.clone(), source };
        let mut params = CertificateParams::new(subject.names.clone()).map_err(failed)?;
        params.distinguished_name = distinguished_name(&subject.common_name, &subject.organizations);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match subject.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        set_lifetime(&mut params, lifetime);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Identity { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let bad = |error: rcgen::Error| Error::Pem { what: "a certificate authority", reason: error.to_string() };
        let key = KeyPair::from_pem(key_pem).map_err(bad)?;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).map_err(bad)?;
        Ok(Self { cert_pem: cert_pem.to_owned(), issuer })
    }

    fn generate(common_name: &str) -> Result<Identity, Error> {
        let failed = |source| Error::Issue { subject: common_name.to_owned(), source };
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(common_name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_lifetime(&mut params, AUTHORITY_LIFETIME);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Identity { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// Writes a file only its owner may read, all of it or nothing.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .and_then(|mut opened| opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all()))
        .and_then(|()| fs::rename(&partial, path));
    written.map_err(|source| file("write", path, source))
}

fn distinguished_name(common_name: &str, organizations: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    for organization in organizations {
        name.push(DnType::OrganizationName, organization);
    }
    name
}

fn set_lifetime(params: &mut CertificateParams, lifetime: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATING;
    params.not_after = now + lifetime;
}

fn file(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject};

    use super::*;
    use crate::tls::{Peer, peer_subject};

    #[test]
    fn an_issued_certificate_names_its_user_and_groups() {
        let ca = Ca::create("test").unwrap();
        let subject = Subject::client("system:node:n1", &["system:nodes"]);
        let identity = ca.issue(&subject, Duration::from_secs(60)).unwrap();
        let der = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).unwrap();
        let peer = Peer { common_name: "system:node:n1".into(), organizations: vec!["system:nodes".into()] };
        assert_eq!(peer_subject(&der), Some(peer));
    }

    #[test]
    fn an_authority_outlives_its_process() {
        let directory = tempfile::tempdir().unwrap();
        let first = Ca::load_or_create(directory.path(), "ca", "forestay").unwrap();
        let again = Ca::load_or_create(directory.path(), "ca", "forestay").unwrap();
        assert_eq!(first.cert_pem(), again.cert_pem());
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(directory.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
