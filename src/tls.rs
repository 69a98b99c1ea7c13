//! The cryptography under every HTTPS client of the process.

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;

/// Makes ring the provider of the process, unless there is one. Before any client is built: reqwest has none of its own
/// here, and panics without.
pub(crate) fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // An error says that another thread was faster, which does as well.
        let _already_there = default_provider().install_default();
    }
}
