//! Dynamic resource allocation: a driver of our own over the library that real ones are made
//! with, the real scheduler, and the claims that its pods have.

use crate::kit::{
    FOREVER, Running, Space, condition, container, has, phase, pod, restarts, same, status, with,
    with_main,
};
use crate::pod_resources::told;
use crate::survival::{kill_agent, start_agent};
use anyhow::{Result, anyhow, ensure};
use e2e::{peer, progress};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

crate::tests!(
    a_claim_made_from_a_template_is_made_ready_and_given_back,
    pods_that_share_a_claim_have_it_made_ready_once,
    a_driver_of_the_older_services_is_asked_by_these,
    an_extended_resource_of_a_device_class_is_a_claim,
    a_pod_waits_for_a_driver_that_refuses,
    a_pod_is_not_over_before_its_driver_has_taken_the_claim_back,
    resource_slices_of_a_driver_that_went_are_removed,
    claimed_devices_outlive_the_agent: alone,
);

/// A driver on the node; it ends with the test.
pub struct Driver<'a> {
    t: &'a Space<'a>,
    child: Option<Running>,
    name: String,
    dir: String,
}

impl<'a> Driver<'a> {
    /// Named after the test's namespace, as are its class and a template for one device.
    pub fn start(t: &'a Space<'a>, devices: &str) -> Result<Driver<'a>> {
        let mut driver = Driver::install(t, devices)?;
        driver.begin()?;
        Ok(driver)
    }

    fn install(t: &'a Space<'a>, devices: &str) -> Result<Driver<'a>> {
        let bed = &t.suite.bed;
        let program = peer::path(&bed.cache, &bed.peers(), &peer::DRA_DRIVER)?;
        let name = format!("{}.example.com", t.name);
        t.node().install(&program, &format!("dra-{}", t.name))?;
        let dir = format!("/var/lib/{name}");
        t.node().write(&format!("{dir}/devices"), devices)?;
        let config = t.kubectl(&["config", "view", "--raw", "--flatten"])?;
        t.node().write(&format!("{dir}/kubeconfig"), &config)?;
        let driver = Driver {
            t,
            child: None,
            name,
            dir,
        };
        driver.make_class()?;
        Ok(driver)
    }

    fn begin(&mut self) -> Result<()> {
        self.run()?;
        self.wait_log("registered", 1)?;
        self.wait_slices(1, 30)
    }

    fn make_class(&self) -> Result<()> {
        let expression = format!("device.driver == {:?}", self.name);
        self.t.apply(&json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
            "metadata": { "name": self.name },
            "spec": {
                "selectors": [{ "cel": { "expression": expression } }],
                "extendedResourceName": self.extended(),
            },
        }))?;
        self.t.apply(&json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
            "metadata": { "name": "one" }, "spec": { "spec": self.asks() },
        }))
    }

    fn extended(&self) -> String {
        format!("example.com/{}", self.t.name)
    }

    fn asks(&self) -> Value {
        let request = json!({ "name": "gpu", "exactly": { "deviceClassName": self.name } });
        json!({ "devices": { "requests": [request] } })
    }

    fn claim(&self, name: &str) -> Result<()> {
        self.t.apply(&json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": { "name": name }, "spec": self.asks(),
        }))
    }

    fn run(&mut self) -> Result<()> {
        let program = format!("dra-{}", self.t.name);
        let mut command = self.t.node().command(&program);
        let command = command.args([&self.name, &self.t.node().name, &self.dir]);
        self.child = Some(Running::spawn(self.t, &program, command)?);
        Ok(())
    }

    fn stop(&mut self) {
        self.child = None;
    }

    fn log(&self) -> String {
        let path = self.t.node().path(&format!("{}/log", self.dir));
        fs::read_to_string(path).unwrap_or_default()
    }

    fn count(&self, text: &str) -> usize {
        self.log().lines().filter(|l| l.starts_with(text)).count()
    }

    pub fn wait_log(&self, text: &str, times: usize) -> Result<()> {
        progress::wait_for(
            &format!("{text:?} of the driver"),
            // The stock kubelet looks once a minute for what pods left.
            Duration::from_secs(120),
            || {
                std::thread::sleep(Duration::from_millis(50));
                Ok((self.count(text) >= times).then_some(()))
            },
        )
        .map_err(|e| {
            let program = format!("dra-{}", self.t.name);
            anyhow!(
                "{e}; it said {} {}",
                self.log(),
                self.t.node().last_words(&program)
            )
        })
    }

    fn refuse(&self, why: Option<&str>) -> Result<()> {
        let file = format!("{}/refuse", self.dir);
        match why {
            Some(why) => self.t.node().write(&file, why),
            None => Ok(fs::remove_file(self.t.node().path(&file))?),
        }
    }

    fn wait_slices(&self, count: usize, seconds: u64) -> Result<()> {
        let what = format!("{count} ResourceSlices");
        progress::wait_for(&what, Duration::from_secs(seconds), || {
            std::thread::sleep(Duration::from_millis(200));
            let field = format!("spec.driver={}", self.name);
            let words = [
                "get",
                "resourceslices",
                "--field-selector",
                &field,
                "-o",
                "name",
            ];
            Ok((self.t.kubectl(&words)?.lines().count() == count).then_some(()))
        })
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.stop();
        let _ = self
            .t
            .kubectl(&["delete", "deviceclass", &self.name, "--wait=false"]);
        let slices = format!("spec.driver={}", self.name);
        let words = ["delete", "resourceslices", "--field-selector", &slices];
        let _ = self.t.kubectl(&words);
    }
}

/// A pod whose container `main` has what it claims, by template or claim.
fn claims(name: &str, source: Value) -> Value {
    let mut claim = source;
    claim["name"] = json!("device");
    let own = json!({ "resources": { "claims": [{ "name": "device" }] } });
    let whole = with(pod(name, FOREVER), json!({ "resourceClaims": [claim] }));
    with_main(whole, own)
}

pub fn from_template(name: &str) -> Value {
    claims(name, json!({ "resourceClaimTemplateName": "one" }))
}

pub fn devices_in(t: &Space, pod: &str, container: &str) -> Result<String> {
    let words = [
        "exec",
        pod,
        "-c",
        container,
        "--",
        "sh",
        "-c",
        "env | grep ^DRA_ | sort",
    ];
    let output = t.output(&words)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn a_claim_made_from_a_template_is_made_ready_and_given_back(t: &Space) -> Result<()> {
    let driver = Driver::start(t, "a\n")?;
    let mut whole = from_template("p");
    if let Some(containers) = whole["spec"]["containers"].as_array_mut() {
        containers.push(container("beside", FOREVER));
    }
    t.run(&whole)?;
    same(devices_in(t, "p", "main")?.as_str(), "DRA_A=yes\n")?;
    // Who does not name the claim has nothing of it.
    same(devices_in(t, "p", "beside")?.as_str(), "")?;
    let claim = t.pod("p")?["status"]["resourceClaimStatuses"][0]["resourceClaimName"].clone();
    let resource = json!({
        "cdi_devices": [{ "name": format!("{}/device=a", driver.name) }],
        "driver_name": driver.name, "pool_name": t.node().name, "device_name": "a",
    });
    let wanted = json!([{
        "claim_name": claim, "claim_namespace": t.name, "claim_resources": [resource],
    }]);
    same(&told(t, "p", "main")?["dynamic_resources"], &wanted)?;
    same(&told(t, "p", "beside")?["dynamic_resources"], &Value::Null)?;
    let said = metrics(t)?;
    for name in [
        "dra_operations_duration_seconds_count{",
        "dra_resource_claims_in_use{driver_name=\"<any>\"} ",
        "dra.v1.DRAPlugin/NodePrepareResources",
        "grpc_status_code=\"OK\"",
    ] {
        has(&said, name)?;
    }
    // How the driver says that it is.
    wait_health(t, &driver, "Healthy")?;
    let file = format!("{}/devices", driver.dir);
    t.node().write(&file, "a Unhealthy\n")?;
    wait_health(t, &driver, "Unhealthy")?;
    t.node().write(&file, "a\n")?;
    // The device is free again for the next one.
    t.kubectl(&["delete", "pod", "p", "--now"])?;
    t.wait_gone("p")?;
    driver.wait_log("unprepare", 1)?;
    same(driver.count("prepare"), 1)?;
    t.run(&from_template("next"))?;
    same(devices_in(t, "next", "main")?.as_str(), "DRA_A=yes\n")
}

fn metrics(t: &Space) -> Result<String> {
    let url = format!("/api/v1/nodes/{}/proxy/metrics", t.node().name);
    t.kubectl(&["get", "--raw", &url])
}

fn health(driver: &Driver, wanted: &str) -> Value {
    let resource = json!({
        "resourceID": format!("{}/device=a", driver.name), "health": wanted,
        "message": format!("it is {wanted}"),
    });
    json!([{ "name": "claim:device", "resources": [resource] }])
}

fn wait_health(t: &Space, driver: &Driver, wanted: &str) -> Result<()> {
    let health = health(driver, wanted);
    let of = |p: &Value| of_main(p)["allocatedResourcesStatus"] == health;
    t.wait("p", &format!("{wanted} device"), of)
}

fn of_main(pod: &Value) -> Value {
    let all = pod["status"]["containerStatuses"].as_array();
    let main = all.into_iter().flatten().find(|c| c["name"] == "main");
    main.cloned().unwrap_or_default()
}

fn pods_that_share_a_claim_have_it_made_ready_once(t: &Space) -> Result<()> {
    let driver = Driver::start(t, "a\nb\n")?;
    driver.claim("shared")?;
    let source = json!({ "resourceClaimName": "shared" });
    t.run(&claims("one", source.clone()))?;
    t.run(&claims("two", source))?;
    let (one, two) = (devices_in(t, "one", "main")?, devices_in(t, "two", "main")?);
    ensure!(one == two && one.starts_with("DRA_"), "{one} and {two}");
    same(driver.count("prepare shared"), 1)?;
    t.kubectl(&["delete", "pod", "one", "--now"])?;
    t.wait_gone("one")?;
    same(driver.count("unprepare"), 0)?;
    t.kubectl(&["delete", "pod", "two", "--now"])?;
    t.wait_gone("two")?;
    driver.wait_log("unprepare shared", 1)
}

fn a_driver_of_the_older_services_is_asked_by_these(t: &Space) -> Result<()> {
    let mut driver = Driver::install(t, "a Unhealthy\n")?;
    t.node().write(&format!("{}/old", driver.dir), "")?;
    driver.begin()?;
    t.run(&from_template("p"))?;
    same(devices_in(t, "p", "main")?.as_str(), "DRA_A=yes\n")?;
    wait_health(t, &driver, "Unhealthy")?;
    has(&metrics(t)?, "dra.v1beta1.DRAPlugin/NodePrepareResources")?;
    t.kubectl(&["delete", "pod", "p", "--now"])?;
    t.wait_gone("p")?;
    driver.wait_log("unprepare", 1)
}

fn an_extended_resource_of_a_device_class_is_a_claim(t: &Space) -> Result<()> {
    let driver = Driver::start(t, "a\nb\n")?;
    let one = json!({ "resources": { "limits": { driver.extended(): "1" } } });
    let mut whole = with_main(pod("p", FOREVER), one);
    if let Some(containers) = whole["spec"]["containers"].as_array_mut() {
        containers.push(container("beside", FOREVER));
    }
    t.run(&whole)?;
    has(&devices_in(t, "p", "main")?, "=yes")?;
    same(devices_in(t, "p", "beside")?.as_str(), "")?;
    let told = told(t, "p", "main")?;
    let resource = &told["dynamic_resources"][0]["claim_resources"][0];
    same(&resource["driver_name"], &json!(driver.name))?;
    t.kubectl(&["delete", "pod", "p", "--now"])?;
    t.wait_gone("p")?;
    driver.wait_log("unprepare", 1)
}

fn a_pod_is_not_over_before_its_driver_has_taken_the_claim_back(t: &Space) -> Result<()> {
    let driver = Driver::start(t, "a\n")?;
    t.run(&with(
        from_template("p"),
        json!({ "restartPolicy": "Never" }),
    ))?;
    driver.refuse(Some("not today"))?;
    t.sh("p", "kill 1")?;
    driver.wait_log("unprepare", 2)?;
    same(phase(&t.pod("p")?), "Running")?;
    driver.refuse(None)?;
    t.wait_for("p", "Succeeded", 120, |p| phase(p) == "Succeeded")
}

fn a_pod_waits_for_a_driver_that_refuses(t: &Space) -> Result<()> {
    let driver = Driver::start(t, "a\n")?;
    driver.refuse(Some("not today"))?;
    t.apply(&from_template("p"))?;
    let words = ["FailedPrepareDynamicResources", "not today"];
    t.wait_event("p", &words)?;
    same(condition(&t.pod("p")?, "Ready"), Some("False"))?;
    driver.refuse(None)?;
    t.wait_for("p", "Ready", 120, |p| condition(p, "Ready") == Some("True"))?;
    has(&devices_in(t, "p", "main")?, "DRA_A=yes")?;
    // Nor does it go before its driver has let it.
    driver.refuse(Some("not today"))?;
    t.kubectl(&["delete", "pod", "p", "--now", "--wait=false"])?;
    driver.wait_log("unprepare", 2)?;
    t.pod("p")?;
    driver.refuse(None)?;
    let gone = || {
        let left = t.kubectl(&["get", "pod", "p", "--ignore-not-found", "-o", "name"])?;
        Ok(left.trim().is_empty().then_some(()))
    };
    progress::wait_for("the pod's end", Duration::from_secs(120), gone)
}

fn resource_slices_of_a_driver_that_went_are_removed(t: &Space) -> Result<()> {
    let mut driver = Driver::start(t, "a\n")?;
    // Its sockets stay.
    driver.stop();
    driver.wait_slices(0, 90)?;
    driver.run()?;
    driver.wait_slices(1, 30)
}

fn claimed_devices_outlive_the_agent(t: &Space) -> Result<()> {
    let mut driver = Driver::start(t, "a\nb\n")?;
    t.run(&from_template("p"))?;
    let before = devices_in(t, "p", "main")?;
    kill_agent(t)?;
    start_agent(t)?;
    let seen = || Ok(t.sh("p", "true").is_ok().then_some(()));
    progress::wait_for("exec after the restart", Duration::from_secs(30), seen)?;
    t.sh("p", "kill 1")?;
    t.wait("p", "a second start", |p| {
        restarts(p) == 1 && status(p)["ready"] == true
    })?;
    same(devices_in(t, "p", "main")?, before)?;
    // How its device is, is known to the next agent too, whoever is away.
    t.node().write(
        &format!("{}/devices", driver.dir),
        "a Unhealthy\nb Unhealthy\n",
    )?;
    let unhealthy = |p: &Value| {
        let told = &of_main(p)["allocatedResourcesStatus"][0]["resources"][0]["health"];
        told == "Unhealthy"
    };
    t.wait("p", "an unhealthy device", unhealthy)?;
    kill_agent(t)?;
    driver.stop();
    start_agent(t)?;
    t.run(&pod("later", FOREVER))?;
    ensure!(unhealthy(&t.pod("p")?), "{}", t.pod("p")?);
    // Deleted while nobody is there to see it.
    kill_agent(t)?;
    t.kubectl(&["delete", "pod", "p", "--force", "--grace-period=0"])?;
    start_agent(t)?;
    // Its ResourceSlices are of no use until it is back.
    driver.wait_slices(0, 25)?;
    driver.run()?;
    driver.wait_log("registered", 2)?;
    driver.wait_log("unprepare", 1)
}
