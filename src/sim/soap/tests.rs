//! Calls as texts: what other clients than pyVmomi send, and what nobody should.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use crate::sim::http::request::Request;
use crate::sim::http::response::Body;
use crate::sim::options::MachineOptions;
use crate::sim::options::Options;
use crate::sim::site::Site;
use crate::sim::soap::envelope;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A simulator without servers, with machines without disks.
struct Scene {
    site: Arc<Site>,
    cookie: String,
}

impl Scene {
    fn new(machines: &[&str]) -> Scene {
        Scene::of(machines, Options::default())
    }

    fn of(machines: &[&str], options: Options) -> Scene {
        let machine =
            |name: &&str| MachineOptions { name: (*name).to_owned(), disks: Vec::new(), powered_on: false };
        let machines = machines.iter().map(machine).collect();
        let options = Options { machines, ..options };
        let user = options.user.clone();
        let site = crate::sim::site_of(options, SocketAddr::from(([127, 0, 0, 1], 1))).unwrap();
        let (cookie, _) = site.sessions.open(&user, PEER, "test").unwrap().unwrap();
        Scene { site, cookie }
    }

    fn send(&self, envelope: &str) -> (u16, String) {
        self.send_as("", envelope)
    }

    /// From a client that speaks this version.
    fn send_as(&self, version: &str, envelope: &str) -> (u16, String) {
        let mut headers = vec![("cookie".to_owned(), format!("vmware_soap_session=\"{}\"", self.cookie))];
        if !version.is_empty() {
            headers.push(("soapaction".to_owned(), format!("\"urn:vim25/{version}\"")));
        }
        let request = Request { headers, body: envelope.as_bytes().to_vec(), ..Request::default() };
        let response = envelope::answer(&self.site, &request, PEER);
        match response.body {
            Body::Bytes(bytes) => (response.status, String::from_utf8(bytes).unwrap()),
            Body::File(..) => panic!("a file"),
        }
    }

    fn call(&self, body: &str) -> (u16, String) {
        self.send(&wrapped(body))
    }

    /// The objects of a specification that selects with these ways from the root.
    fn selected(&self, kind: &str, skip: bool, ways: &str) -> Vec<String> {
        let (status, answer) = self.call(&format!(
            "<RetrieveProperties xmlns=\"urn:vim25\"><_this type=\"PropertyCollector\">propertyCollector</_this><specSet>\
             <propSet><type>{kind}</type><pathSet>name</pathSet></propSet><objectSet><obj type=\"Folder\">group-d1</obj>\
             <skip>{skip}</skip>{ways}</objectSet></specSet></RetrieveProperties>"
        ));
        assert_eq!(status, 200, "{answer}");
        let document = roxmltree::Document::parse(&answer).unwrap();
        let objects = document.descendants().filter(|node| node.tag_name().name() == "obj");
        objects.filter_map(|node| node.text().map(str::to_owned)).collect()
    }
}

fn wrapped(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><e:Envelope xmlns:e=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><e:Body>{body}</e:Body></e:Envelope>"
    )
}

fn way(name: &str, kind: &str, path: &str, next: &[&str]) -> String {
    let next: String =
        next.iter().map(|name| format!("<selectSet><name>{name}</name></selectSet>")).collect();
    format!(
        "<selectSet xsi:type=\"TraversalSpec\"><name>{name}</name><type>{kind}</type><path>{path}</path><skip>false</skip>\
         {next}</selectSet>"
    )
}

#[test]
fn ways_that_name_each_other_find_everything_once() {
    let scene = Scene::new(&["one", "two"]);
    // The classic traversal of clients in the manner of govc: folders lead to folders, datacenters to their folders.
    let ways = way("folders", "Folder", "childEntity", &["folders", "vms", "hosts"])
        + &way("vms", "Datacenter", "vmFolder", &["folders"])
        + &way("hosts", "Datacenter", "hostFolder", &["folders"]);
    assert_eq!(scene.selected("VirtualMachine", true, &ways).len(), 2);
    assert_eq!(scene.selected("ComputeResource", true, &ways), ["domain-s8"]);
    let all = scene.selected("ManagedEntity", false, &ways);
    assert_eq!(all.first().map(String::as_str), Some("group-d1"));
    let mut once = all.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), all.len());
    assert_eq!(scene.selected("ManagedEntity", true, ""), Vec::<String>::new());
}

#[test]
fn a_way_leads_only_from_objects_of_its_type() {
    let scene = Scene::new(&["one"]);
    let ways = way("x", "Datacenter", "childEntity", &[]);
    assert_eq!(scene.selected("ManagedEntity", true, &ways), Vec::<String>::new());
    let up = way("p", "ManagedEntity", "parent", &["p"]);
    let (_, answer) = scene.call(&format!(
        "<RetrieveProperties xmlns=\"urn:vim25\"><_this type=\"PropertyCollector\">propertyCollector</_this><specSet>\
         <propSet><type>ManagedEntity</type><pathSet>name</pathSet></propSet><objectSet>\
         <obj type=\"HostSystem\">host-9</obj><skip>false</skip>{up}</objectSet></specSet></RetrieveProperties>"
    ));
    let order = ["host-9", "domain-s8", "group-h4", "datacenter-2", "group-d1"];
    let places: Vec<usize> = order.iter().map(|id| answer.find(&format!(">{id}</obj>")).unwrap()).collect();
    assert!(places.is_sorted(), "{answer}");
}

#[test]
fn what_is_no_method_or_no_object_is_told_apart() {
    let scene = Scene::new(&["one"]);
    let fault = |body: &str| {
        let (status, answer) = scene.call(body);
        assert_eq!(status, 500, "{answer}");
        let document = roxmltree::Document::parse(&answer).unwrap();
        let detail = document.descendants().find(|node| node.tag_name().name() == "detail").unwrap();
        detail.first_element_child().unwrap().tag_name().name().to_owned()
    };
    assert_eq!(
        fault("<Nonsense><_this type=\"VirtualMachine\">vm-21</_this></Nonsense>"),
        "InvalidRequestFault"
    );
    assert_eq!(fault("<Login><_this type=\"VirtualMachine\">vm-21</_this></Login>"), "MethodNotFoundFault");
    let gone = "<PowerOnVM_Task><_this type=\"VirtualMachine\">vm-99</_this></PowerOnVM_Task>";
    assert_eq!(fault(gone), "ManagedObjectNotFoundFault");
    assert_eq!(
        fault("<RelocateVM_Task><_this type=\"VirtualMachine\">vm-21</_this></RelocateVM_Task>"),
        "NotSupportedFault"
    );
    assert_eq!(fault("<Login/>"), "InvalidRequestFault");
    assert_eq!(fault(""), "InvalidRequestFault");
}

#[test]
fn a_disabled_method_is_refused_until_its_source_enables_it() {
    let scene = Scene::new(&["one"]);
    let change = |verb: &str, method: &str, source: &str| {
        scene.call(&format!(
            "<{verb}Methods xmlns=\"urn:internalvim25\"><_this type=\"AuthorizationManager\">AuthorizationManager</_this>\
             <entity type=\"VirtualMachine\">vm-21</entity>{method}<sourceId>{source}</sourceId></{verb}Methods>"
        ))
    };
    let off = "<method><method>RelocateVM_Task</method><reasonId>backup</reasonId></method>";
    let on = "<method>RelocateVM_Task</method>";
    let relocate = "<RelocateVM_Task><_this type=\"VirtualMachine\">vm-21</_this></RelocateVM_Task>";
    assert_eq!(change("Disable", off, "us").0, 200);
    let again = change("Disable", off, "them").1;
    assert!(
        again.contains("MethodAlreadyDisabledFaultFault") && again.contains("<sourceId>us</sourceId>"),
        "{again}"
    );
    assert!(scene.call(relocate).1.contains("MethodDisabledFault"));
    assert_eq!(change("Enable", on, "them").0, 200);
    assert!(scene.call(relocate).1.contains("MethodDisabledFault"));
    assert_eq!(change("Enable", on, "us").0, 200);
    assert!(scene.call(relocate).1.contains("NotSupportedFault"));
}

#[test]
fn rules_answer_instead_of_methods() {
    let scene = Scene::new(&["one"]);
    let time = "<CurrentTime><_this type=\"ServiceInstance\">ServiceInstance</_this></CurrentTime>";
    let rule = "soap.CurrentTime:2=fault(NoPermission,privilege=System.View,object=\"Folder:group-d1\")";
    scene.site.faults.add(crate::sim::fault::Rule::parse(rule).unwrap());
    assert_eq!(scene.call(time).0, 200);
    let (status, answer) = scene.call(time);
    assert_eq!(status, 500);
    assert!(answer.contains("<NoPermissionFault xmlns=\"urn:vim25\" xsi:type=\"NoPermission\">"), "{answer}");
    assert!(
        answer.contains("<privilegeId>System.View</privilegeId><object type=\"Folder\">group-d1</object>")
    );
    assert_eq!(scene.call(time).0, 200);
}

#[test]
fn entities_and_bombs_are_refused() {
    let scene = Scene::new(&[]);
    let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]>";
    let file = "<!DOCTYPE x [<!ENTITY a SYSTEM \"file:///etc/passwd\">]>";
    for start in [bomb, file] {
        let (status, answer) = scene.send(&format!("{start}{}", wrapped("<Login>&a;</Login>")));
        assert_eq!(status, 500);
        assert!(answer.contains("InvalidRequestFault") && !answer.contains("root:"), "{answer}");
    }
    let deep = format!("{}{}", "<a>".repeat(90_000), "</a>".repeat(90_000));
    // On a stack that is smaller than that of the server's threads.
    let site = scene.site.clone();
    let small = std::thread::Builder::new().stack_size(256 * 1024);
    let status =
        small.spawn(move || Scene { site, cookie: String::new() }.call(&deep).0).unwrap().join().unwrap();
    assert_eq!(status, 500);
    assert_eq!(scene.call(&"<a/>".repeat(200_000)).0, 500);
    let ways = "<selectSet><name>x</name><path>p</path>".repeat(500) + &"</selectSet>".repeat(500);
    let (_, answer) = scene.call(&format!(
        "<CreateFilter><_this type=\"PropertyCollector\">propertyCollector</_this><spec><objectSet>\
         <obj type=\"Folder\">group-d1</obj>{ways}</objectSet></spec></CreateFilter>"
    ));
    assert!(answer.contains("InvalidArgumentFault"), "{answer}");
}

#[test]
fn a_certificate_is_in_tickets_for_callers_that_know_the_field() {
    use crate::sim::personality::Release;
    for (release, version, whole) in [
        (Release::V90, "9.0.0.0", true),
        (Release::V90, "8.0.3.0", false),
        (Release::V90, "", false),
        (Release::V80, "8.0.1.0", false),
    ] {
        let scene = Scene::of(&["a"], Options { release, ..Options::default() });
        let machine = scene.site.world.lock().machines[0].id.clone();
        let call = format!(
            "<NfcGetVmFiles xmlns=\"urn:vim25\"><_this type=\"NfcService\">nfcService</_this>\
             <vm type=\"VirtualMachine\">{machine}</vm></NfcGetVmFiles>"
        );
        let (status, ticket) = scene.send_as(version, &wrapped(&call));
        assert_eq!(status, 200, "{ticket}");
        assert_eq!(ticket.contains("<sslCertificate>-----BEGIN"), whole, "{release:?} {version}: {ticket}");
        assert_eq!(ticket.contains("<sslThumbprint>"), !whole, "{release:?} {version}: {ticket}");
    }
}

#[test]
fn versions_go_by_their_first_two_numbers_as_well() {
    let scene = Scene::new(&[]);
    let call = "<CurrentTime xmlns=\"urn:vim25\"><_this type=\"ServiceInstance\">ServiceInstance</_this></CurrentTime>";
    for (version, known) in [
        ("7.0", true),
        ("8.0", true),
        ("8.0.1.0", true),
        ("6.5", true),
        ("9.0", false),
        ("8", false),
        ("8.0.9.9", false),
    ] {
        let (status, answer) = scene.send_as(version, &wrapped(call));
        assert_eq!(status, if known { 200 } else { 500 }, "{version}: {answer}");
    }
}

#[test]
fn without_a_session_only_the_door_answers() {
    let scene = Scene::new(&["one"]);
    let outside = Scene { site: scene.site.clone(), cookie: "nothing".to_owned() };
    let (_, answer) =
        outside.call("<PowerOnVM_Task><_this type=\"VirtualMachine\">vm-21</_this></PowerOnVM_Task>");
    assert!(answer.contains("NotAuthenticatedFault"), "{answer}");
    let content = "<RetrieveServiceContent><_this type=\"ServiceInstance\">ServiceInstance</_this></RetrieveServiceContent>";
    assert_eq!(outside.call(content).0, 200);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever comes in a request for any method, an answer that is XML goes out.
    #[test]
    fn every_request_has_an_answer(
        method in prop::sample::select(super::methods::names()),
        kind in prop::sample::select(vec![
            "VirtualMachine", "ServiceInstance", "PropertyCollector", "SessionManager", "NfcService", "Folder",
        ]),
        parts in prop::collection::vec(("[a-zA-Z]{1,16}", "[ -~]{0,12}", 0u8..4), 0..12),
    ) {
        let scene = Scene::new(&["one"]);
        let id = match kind {
            "VirtualMachine" => "vm-21",
            "PropertyCollector" => "propertyCollector",
            "NfcService" => "nfcService",
            "Folder" => "group-d1",
            other => other,
        };
        // Waiting for updates would wait.
        prop_assume!(!method.starts_with("WaitForUpdates"));
        let mut body = format!("<{method}><_this type=\"{kind}\">{id}</_this>");
        let mut open = Vec::new();
        for (name, text, ends) in &parts {
            body += &format!("<{name} type=\"VirtualMachine\">{}", crate::sim::xml::escape(text));
            open.push(name);
            for _ in 0..*ends {
                if let Some(name) = open.pop() {
                    body += &format!("</{name}>");
                }
            }
        }
        while let Some(name) = open.pop() {
            body += &format!("</{name}>");
        }
        body += &format!("</{method}>");
        let (status, answer) = scene.call(&body);
        prop_assert!(status == 200 || status == 500);
        prop_assert!(roxmltree::Document::parse(&answer).is_ok(), "{}", answer);
    }
}
