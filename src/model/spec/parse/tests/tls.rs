//! `tls` of services.

use super::*;

/// A CA, as PEM.
fn authority() -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

fn over_tls(tls: Value) -> Value {
    json!({"endpoints": [{"address": "a.internal:443"}], "protocol": "https", "tls": tls})
}

#[test]
fn faults_of_tls_are_named() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let broken = authority().replace("MII", "MIA");
    let table = [
        (json!("x"), "/tls", "expected an object"),
        (json!({"hostnames": "a"}), "/tls/hostnames", "did you mean \"hostname\"?"),
        (json!({"subjectAltNames": []}), "/tls/subjectAltNames", "not supported yet"),
        (json!({"hostname": "10.0.0.1"}), "/tls/hostname", "not an IP address"),
        (json!({"hostname": "*.internal"}), "/tls/hostname", "a wildcard is not allowed"),
        (json!({"hostname": "A.internal"}), "/tls/hostname", "\"a.internal\""),
        (json!({"hostname": ""}), "/tls/hostname", "must not be empty"),
        (json!({"clientCertificate": "-x"}), "/tls/clientCertificate", ""),
        (json!({"minVersion": "1.1"}), "/tls/minVersion", "known are 1.2, 1.3"),
        (json!({"insecureSkipVerify": "yes"}), "/tls/insecureSkipVerify", "expected a boolean"),
        (json!({"caCertificates": ["x"]}), "/tls/caCertificates", "expected a string"),
        (json!({"caCertificates": "x"}), "/tls/caCertificates", "holds no certificate"),
        (json!({"caCertificates": "-----BEGIN CERTIFICATE-----\nAAAA"}), "/tls/caCertificates", "is not PEM"),
        (json!({"caCertificates": authority() + &broken}), "/tls/caCertificates", "certificate 2 cannot be read"),
        (json!({"caCertificates": authority() + &key}), "/tls/caCertificates", "keys and other sections must be removed"),
        (json!({"caCertificates": authority().repeat(513)}), "/tls/caCertificates", "at most 512 certificates"),
        (json!({"caCertificates": "x".repeat(600_000)}), "/tls/caCertificates", "at most 524288 bytes"),
        (
            json!({"caCertificates": authority(), "insecureSkipVerify": true}),
            "/tls/caCertificates",
            "has no effect with `insecureSkipVerify`",
        ),
    ];
    for (tls, path, part) in table {
        assert_bad_service(&over_tls(tls), &[(path, part)]);
    }
    for protocol in ["http1", "h2c"] {
        let document = json!({"protocol": protocol, "tls": {}});
        assert_bad_service(&document, &[("/tls", &format!("this service speaks {protocol}"))]);
    }
    assert_bad_service(&json!({"tls": {}}), &[("/tls", "this service speaks http1")]);
}

#[test]
fn good_tls_is_resolved() {
    let parsed = |document: Value| parse_service(&document).unwrap_or_else(|errors| panic!("{document}: {errors:?}"));
    for (name, protocol) in [("https", Protocol::Https), ("h2", Protocol::H2)] {
        let Parsed { spec, warnings } = parsed(json!({"protocol": name, "endpoints": [{"address": "a.internal:443"}]}));
        assert_eq!((spec.protocol, spec.tls.as_deref(), warnings), (protocol, Some(&ServiceTls::default()), vec![]));
    }
    assert_eq!(parsed(json!({"protocol": "h2c"})).spec.tls, None);

    let document = json!({
        "hostname": "orders.internal", "caCertificates": authority() + &authority(), "clientCertificate": "gateway",
        "minVersion": "1.3", "insecureSkipVerify": false,
    });
    let tls = parsed(over_tls(document)).spec.tls.unwrap();
    assert_eq!((tls.hostname.as_deref(), tls.version_min), (Some("orders.internal"), TlsVersion::V1_3));
    assert_eq!(tls.client_certificate.as_ref().map(|name| name.as_str()), Some("gateway"));
    assert!(matches!(&tls.authorities, Authorities::Bundle(anchors) if anchors.len() == 2), "{tls:?}");
}

#[test]
fn what_is_hardly_meant_is_warned_of() {
    let warnings = |address: &str, tls: Value| {
        let document = json!({"protocol": "h2", "endpoints": [{"address": address}], "tls": tls});
        parse_service(&document).unwrap_or_else(|errors| panic!("{document}: {errors:?}")).warnings
    };
    let skipped = warnings("10.0.0.1:443", json!({"insecureSkipVerify": true}));
    assert!(matches!(&skipped[..], [warning] if warning.starts_with("/tls/insecureSkipVerify: ")), "{skipped:?}");
    let unnamed = warnings("10.0.0.1:443", json!({}));
    assert!(matches!(&unnamed[..], [warning] if warning.contains("must carry that address")), "{unnamed:?}");
    assert_eq!(warnings("10.0.0.1:443", json!({"hostname": "a.internal"})), [""; 0]);
    assert_eq!(warnings("a.internal:443", json!({})), [""; 0]);
}
