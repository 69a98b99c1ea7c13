//! An authority, and what it signs, made anew for each test.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};

/// Signs certificates for this machine.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Pair {
    /// Writes both into `directory`, beside each other.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let [cert, key] = ["crt", "key"].map(|kind| directory.join(format!("{name}.{kind}")));
        fs::write(&cert, &self.cert).unwrap();
        fs::write(&key, &self.key).unwrap();
        (cert, key)
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A server's, valid until the end of `year`.
    pub fn server(&self, year: i32) -> Pair {
        self.sign(year, ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub fn client(&self) -> Pair {
        self.sign(2090, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, year: i32, purpose: ExtendedKeyUsagePurpose) -> Pair {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(year, 12, 31);
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes its own certificate into `directory`.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join("ca.crt");
        fs::write(&path, self.pem()).unwrap();
        path
    }
}
