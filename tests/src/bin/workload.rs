//! A workload that knows nothing of this node but `SPIFFE_ENDPOINT_SOCKET`: it uses SPIFFE's own client library.
//!
//!     workload show AUDIENCE      its SVIDs, verified by the library, as one line of JSON; then it waits
//!     workload serve PORT ID      TLS on loopback for a peer that proves to be ID, until one has come; then it waits
//!     workload call PORT ID       the same as its client

#![allow(clippy::print_stdout, clippy::expect_used, clippy::indexing_slicing, reason = "a program of tests")]

use std::{error::Error, sync::Arc, time::Duration};

use spiffe::{JwtSvid, WorkloadApiClient, X509Source};
use spiffe_rustls::{LocalOnly, authorizer, mtls_client, mtls_server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, rustls::pki_types::ServerName};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const HELLO: &[u8; 5] = b"hello";

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let said = runtime.block_on(async {
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["show", audience] => show(audience).await,
            ["serve", port, peer] => serve(port, peer).await,
            ["call", port, peer] => call(port, peer).await,
            _ => Err("workload show AUDIENCE | serve PORT ID | call PORT ID".into()),
        }
    });
    if let Err(error) = &said {
        println!("failed: {error}");
    }
    // A service that ends is started again.
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

async fn show(audience: &str) -> Outcome {
    let client = WorkloadApiClient::connect_env().await?;
    let x509 = client.fetch_x509_svid().await?;
    let bundles = client.fetch_jwt_bundles().await?;
    let token = client.fetch_jwt_token([audience], None).await?;
    // By the library's own check of the signature, and by the node's.
    let jwt = JwtSvid::parse_and_validate(&token, &bundles, &[audience])?;
    let validated = client.validate_jwt_token(audience, &token).await?;
    let (x509, jwt, validated) = (x509.spiffe_id(), jwt.spiffe_id(), validated.spiffe_id());
    println!(r#"{{"x509":"{x509}","jwt":"{jwt}","validated":"{validated}"}}"#);
    Ok(())
}

async fn serve(port: &str, peer: &str) -> Outcome {
    let source = X509Source::new().await?;
    let config = mtls_server(source)
        .authorize(authorizer::exact([peer])?)
        .trust_domain_policy(local(peer)?)
        .build()?;
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        match TlsAcceptor::from(Arc::new(config.clone())).accept(stream).await {
            Ok(mut stream) => {
                stream.write_all(HELLO).await?;
                stream.shutdown().await?;
                println!("served {peer}");
            }
            Err(error) => println!("refused: {error}"),
        }
    }
}

async fn call(port: &str, peer: &str) -> Outcome {
    let source = X509Source::new().await?;
    let config = mtls_client(source)
        .authorize(authorizer::exact([peer])?)
        .trust_domain_policy(local(peer)?)
        .build()?;
    let port = port.parse::<u16>()?;
    // The other service may still be starting.
    let stream = loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    if said == HELLO {
        println!("heard {peer}")
    } else {
        println!("failed: heard {said:?}")
    }
    Ok(())
}

fn local(peer: &str) -> Result<spiffe_rustls::TrustDomainPolicy, Box<dyn Error + Send + Sync>> {
    let id: spiffe::SpiffeId = peer.parse()?;
    Ok(LocalOnly(id.trust_domain().clone()))
}
