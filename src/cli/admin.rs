//! `--admin`: where the admin port is, and who may use it; for the commands that run a gateway.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::address;
use crate::config::{self, ADMIN};
use crate::fault::Fault;
use crate::gateway::{AdminOptions, AdminTls, AdminToken, GatewayConfig, TlsFiles};

/// The token itself; an argument of that kind would stand in every list of processes.
const TOKEN: &str = "TIDEGATE_ADMIN_TOKEN";

#[derive(Args, Clone)]
pub(super) struct AdminArgs {
    /// Where health, metrics and the console are.
    #[arg(long, env = "TIDEGATE_ADMIN", default_value = ADMIN, value_parser = address)]
    admin: SocketAddr,
    /// File with the token for everything on the admin port but health and metrics (TIDEGATE_ADMIN_TOKEN is the token
    /// itself). Without a credential it can be used on loopback alone.
    #[arg(long, env = "TIDEGATE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// PEM file of the admin port's certificate: it then speaks TLS.
    #[arg(long, env = "TIDEGATE_ADMIN_TLS_CERT", value_name = "FILE", requires = "admin_tls_key")]
    admin_tls_cert: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, env = "TIDEGATE_ADMIN_TLS_KEY", value_name = "FILE", requires = "admin_tls_cert")]
    admin_tls_key: Option<PathBuf>,
    /// PEM file of the authorities of clients: a certificate that one of them signed counts as the token does.
    #[arg(long, env = "TIDEGATE_ADMIN_CLIENT_CA", value_name = "FILE", requires = "admin_tls_cert")]
    admin_client_ca: Option<PathBuf>,
}

impl AdminArgs {
    /// Puts address and access into a gateway's settings; reads every file once.
    pub(super) fn apply(&self, config: &mut GatewayConfig) -> Result<(), Fault> {
        let token = match &self.admin_token_file {
            Some(file) => Some(AdminToken::File(file.clone())),
            None => config::variable(TOKEN).map(|token| AdminToken::Text(token.into())),
        };
        token.as_ref().map_or(Ok(()), AdminToken::check)?;
        let tls = self.admin_tls_cert.clone().zip(self.admin_tls_key.clone());
        let tls = tls.map(|(certificate, key)| {
            AdminTls::new(TlsFiles { certificate, key, client_authority: self.admin_client_ca.clone() })
        });
        config.admin = Some(self.admin);
        config.admin_options = AdminOptions { token, tls: tls.transpose()?, reloads: None };
        Ok(())
    }

    /// Where the console is, once the port has its address.
    pub(super) fn console(&self, bound: SocketAddr) -> String {
        let scheme = if self.admin_tls_cert.is_some() { "https" } else { "http" };
        format!("{scheme}://{bound}/console")
    }
}
