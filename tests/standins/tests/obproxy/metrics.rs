//! M1 to M5.

use crate::place::{NEW, OLD, Place};

#[test]
fn a_proxy_without_tenants_tells_of_its_exposer_alone() {
    for version in [NEW, OLD] {
        tells_of_its_exposer_alone(Place::new("metrics", version));
    }
}

fn tells_of_its_exposer_alone(mut place: Place) {
    place.start("");
    place.login();
    let (status, body) = place.http("/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK", "M1");
    assert_eq!((body.lines().count(), body.len()), (13, 618), "M2");
    assert!(body.contains("exposer_request_latencies{quantile=\"0.99\"} Nan\n"), "M3");
    let (_, body) = place.http("/metrics");
    assert!(body.contains("exposer_scrapes_total 1\n") && !body.contains("odp_"), "M2, M4");
    for other in ["/", "/metric", "/metrics/x"] {
        assert_eq!(place.http(other).0, "HTTP/1.1 404 Not Found", "M1");
    }
}

#[test]
fn families_come_with_tenant_traffic() {
    for version in [NEW, OLD] {
        let mut place = Place::new("families", version);
        place.start(",standin_tenant_traffic=1");
        place.login();
        let (_, body) = place.http("/metrics");
        assert!(body.contains("\n# TYPE odp_current_session gauge\nodp_current_session{ip="), "M5: {body}");
        assert!(body.contains("namespace=\"ODP\"") && body.contains("cluster=\"obdemo\""), "M5");
    }
}
