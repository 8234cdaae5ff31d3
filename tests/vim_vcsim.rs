//! Our SOAP client against a server that others wrote: govmomi's simulator, as a vCenter and as a bare host.
#![allow(clippy::unwrap_used)]

mod common;

use common::vcsim;
use common::vcsim::Lines;
use common::vcsim::Vcsim;
use common::vcsim::between;
use ring::digest;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::logging::Log;
use vixDiskLib::net::nfc::ticket::HostIdentity;
use vixDiskLib::net::tls::TlsSettings;
use vixDiskLib::net::vim::Adapter;
use vixDiskLib::net::vim::Backing;
use vixDiskLib::net::vim::Login;
use vixDiskLib::net::vim::MachineSpec;
use vixDiskLib::net::vim::Moref;
use vixDiskLib::net::vim::Power;
use vixDiskLib::net::vim::Session;
use vixDiskLib::net::vim::Times;
use vixDiskLib::secret::Secret;

/// A machine of the simulated vCenter.
const MACHINE: &str = "DC0/vm/DC0_H0_VM0";

fn machine(session: &Session, name: &str) -> Moref {
    session.machine(&MachineSpec::parse(name).unwrap()).unwrap()
}

fn cookie(text: &str) -> Login {
    Login::Cookie(Secret::from(text.to_owned()))
}

#[track_caller]
fn kind<T>(done: Result<T, vixDiskLib::error::Error>) -> ErrorKind {
    done.err().expect("an error").kind()
}

#[test]
fn the_right_password_gets_in_and_a_wrong_one_does_not() {
    requires!(&vcsim::program());
    for (server, is_vcenter) in [(vcsim::vcenter(), true), (vcsim::host(), false)] {
        let session = server.session();
        assert_eq!(session.about().is_vcenter(), is_vcenter);
        assert_eq!(session.about().api_version, "6.5");
        session.keep_alive().unwrap();
        let lines = Lines::default();
        let e = server.open(vcsim::user("wrong-canary"), lines.log()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unauthorised);
        assert!(
            e.to_string().contains("Login with InvalidLogin") && e.to_string().contains("\"user\""),
            "{e}"
        );
        assert!(!format!("{e} {e:?} {}", lines.text()).contains("canary"));
    }
}

#[test]
fn the_server_has_to_be_the_right_one() {
    requires!(&vcsim::program());
    let server = vcsim::vcenter();
    let (sha1, sha256) =
        (server.thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY), server.thumbprint(&digest::SHA256));
    let open = |thumbprint: &str, ca: bool, log| {
        let tls = TlsSettings {
            thumbprint: Some(thumbprint.to_owned()),
            ca_file: ca.then(|| server.certificate_file()),
            ..TlsSettings::default()
        };
        Session::open(server.server(tls), vcsim::user("pass"), Times::default(), log)
    };
    for (thumbprint, ca) in
        [(sha1.as_str(), false), (&sha1.replace(':', "").to_uppercase(), false), (&sha256, false), ("", true)]
    {
        open(thumbprint, ca, Log::none()).unwrap();
    }
    assert_eq!(kind(open("", false, Log::none())), ErrorKind::CertificateRefused);
    let (lines, wrong) = (Lines::default(), "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33");
    assert_eq!(kind(open(wrong, true, lines.log())), ErrorKind::CertificateRefused);
    let line = format!(
        "VixDiskLibVim: Failed to verify SSL certificate: actual thumbprint={} expected={wrong}",
        sha1.to_uppercase()
    );
    assert_eq!(lines.count(&line), 1, "{}", lines.text());
}

#[test]
fn the_cookie_of_another_login_gets_in_and_is_left_alone() {
    requires!(&vcsim::program());
    let server = vcsim::vcenter();
    let owner = server.session();
    let value = owner.cookie().expose_text().unwrap().to_owned();
    for text in [
        value.clone(),
        format!("\"{value}\""),
        format!("vmware_soap_session={value}"),
        format!("vmware_soap_session=\"{value}\"; Path=/; HttpOnly"),
    ] {
        let lines = Lines::default();
        let guest = server.open(cookie(&text), lines.log()).unwrap();
        guest.keep_alive().unwrap();
        assert_eq!(machine(&guest, MACHINE), machine(&owner, MACHINE));
        guest.close().unwrap();
        owner.keep_alive().unwrap();
        assert!(!lines.text().contains(&value), "{}", lines.text());
    }
    for text in ["52e85bf4-0000-0000-0000-00000000000a", "x"] {
        let e = server.open(cookie(text), Log::none()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::SessionInvalid, "{e}");
    }
}

#[test]
fn closing_ends_the_session_on_the_server() {
    requires!(&vcsim::program());
    let server = vcsim::vcenter();
    let (session, value) = (server.session(), server.session().cookie());
    let guest = server.open(Login::Cookie(session.cookie()), Log::none()).unwrap();
    assert!(server.soap(&session.cookie(), TIME).contains("CurrentTimeResponse"));
    let own = session.cookie();
    session.close().unwrap();
    session.close().unwrap();
    assert!(server.soap(&own, TIME).contains("NotAuthenticated"));
    assert_eq!(kind(session.keep_alive()), ErrorKind::SessionInvalid);
    assert_eq!(kind(guest.keep_alive()), ErrorKind::SessionInvalid, "a cookie cannot log in again");
    assert_eq!(kind(server.open(Login::Cookie(own), Log::none())), ErrorKind::SessionInvalid);
    assert!(server.soap(&value, TIME).contains("CurrentTimeResponse"), "dropping says no farewell");
}

const TIME: &str =
    "<CurrentTime xmlns=\"urn:vim25\"><_this type=\"ServiceInstance\">ServiceInstance</_this></CurrentTime>";

/// What an expiry looks like. In this simulator the key of a session is its cookie.
fn terminate(server: &Vcsim, session: &Session) {
    let key = session.cookie();
    let said = server.soap(
        &server.session().cookie(),
        &format!(
            "<TerminateSession xmlns=\"urn:vim25\"><_this type=\"SessionManager\">SessionManager</_this>\
             <sessionId>{}</sessionId></TerminateSession>",
            key.expose_text().unwrap()
        ),
    );
    assert!(said.contains("TerminateSessionResponse"), "{said}");
}

#[test]
fn a_session_that_expired_is_made_again_once_for_all_threads() {
    requires!(&vcsim::program());
    let server = vcsim::vcenter();
    let lines = Lines::default();
    let session = server.open(vcsim::user("pass"), lines.log()).unwrap();
    let before = session.cookie();
    terminate(&server, &session);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                session.keep_alive().unwrap();
                session.ticket_for_files(&machine(&session, MACHINE)).unwrap();
            });
        }
    });
    assert_ne!(session.cookie().expose(), before.expose());
    assert_eq!(lines.count("logged in to"), 2, "{}", lines.text());
    session.close().unwrap();
}

#[test]
fn machines_are_found_in_every_form() {
    requires!(&vcsim::program());
    let server = vcsim::vcenter();
    let session = server.session();
    let found = machine(&session, MACHINE);
    let uuid = |path| server.property(&session.cookie(), "VirtualMachine", &found.id, path);
    for spec in [
        format!("moref={}", found.id),
        found.id.clone(),
        "DC0_H0_VM0/DC0_H0_VM0.vmx?dcPath=DC0&dsName=LocalDS_0".to_owned(),
        "[LocalDS_0] DC0_H0_VM0/DC0_H0_VM0.vmx?dcPath=/DC0/".to_owned(),
        "DC0%5FH0_VM0/DC0_H0_VM0.vmx?dsName=LocalDS%5F0&dcPath=%44C0".to_owned(),
        "DC0_H0_VM0/DC0%255FH0_VM0.vmx?dcPath=D%25430&dsName=Local%2544S_0".to_owned(),
        "DC0_H0_VM0/DC0_H0_VM0.vmx?DC0?LocalDS_0".to_owned(),
        uuid("config.uuid"),
        uuid("config.instanceUuid").to_uppercase().to_lowercase(),
        "/DC0/vm/DC0%5FH0_VM0".to_owned(),
    ] {
        assert_eq!(machine(&session, &spec), found, "{spec}");
    }
    for spec in [
        "DC0/vm/none",
        "DC0/datastore",
        "x/x.vmx?dcPath=DC0&dsName=LocalDS_0",
        "DC0_H0_VM0/DC0_H0_VM0.vmx?dcPath=DC9&dsName=LocalDS_0",
        "00000000-1111-2222-3333-444444444444",
    ] {
        assert_eq!(
            kind(session.machine(&MachineSpec::parse(spec).unwrap())),
            ErrorKind::MachineNotFound,
            "{spec}"
        );
    }
    let without_datacenter = MachineSpec::parse("[LocalDS_0] DC0_H0_VM0/DC0_H0_VM0.vmx?x=y").unwrap();
    assert_eq!(kind(session.machine(&without_datacenter)), ErrorKind::InvalidArgument);

    let server = vcsim::host();
    let session = server.session();
    let found = machine(&session, "ha-datacenter/vm/ha-host_VM0");
    assert_eq!(machine(&session, "[LocalDS_0] ha-host_VM0/ha-host_VM0.vmx?x=y"), found);
}

#[test]
fn a_machine_is_read_with_its_disks() {
    requires!(&vcsim::program());
    for (server, path, name) in [
        (vcsim::vcenter(), MACHINE, "DC0_H0_VM0"),
        (vcsim::host(), "ha-datacenter/vm/ha-host_VM0", "ha-host_VM0"),
    ] {
        let session = server.session();
        let hardware = session.hardware(&machine(&session, path), None).unwrap();
        assert_eq!((hardware.name.as_str(), hardware.power), (name, Power::On));
        assert_eq!(hardware.host.as_ref().unwrap().kind, "HostSystem");
        let [disk] = hardware.disks.as_slice() else { panic!("{hardware:?}") };
        assert_eq!(disk.chain, [format!("[LocalDS_0] {name}/disk1.vmdk")]);
        assert_eq!(
            (disk.adapter, disk.backing, disk.mode.as_str()),
            (Adapter::ParaVirtual, Backing::Flat, "persistent")
        );
        assert!(disk.capacity > 0 && disk.capacity % 512 == 0 && !disk.label.is_empty(), "{disk:?}");
        assert!(hardware.disk(&format!("[LocalDS_0]{name}/disk1.vmdk")).is_some());
        assert_eq!(kind(session.hardware(&Moref::machine("vm-none"), None)), ErrorKind::MachineNotFound);
    }
}

fn snapshot(server: &Vcsim, session: &Session, machine: &Moref) -> Moref {
    let said = server.soap(
        &session.cookie(),
        &format!(
            "<CreateSnapshot_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">{}</_this><name>a &amp; b</name>\
             <memory>false</memory><quiesce>false</quiesce></CreateSnapshot_Task>",
            machine.id
        ),
    );
    let task = between(&said, "<returnval type=\"Task\">", "</returnval>");
    Moref::snapshot(&format!("moref={}", server.result(&session.cookie(), task))).unwrap()
}

#[test]
fn a_snapshot_has_to_be_one_of_the_machine() {
    requires!(&vcsim::program());
    let server = vcsim::vcenter();
    let session = server.session();
    let (first, second) = (machine(&session, MACHINE), machine(&session, "DC0/vm/DC0_H0_VM1"));
    let (older, newer) = (snapshot(&server, &session, &first), snapshot(&server, &session, &first));
    for snapshot in [&older, &newer] {
        let hardware = session.hardware(&first, Some(snapshot)).unwrap();
        assert_eq!(hardware.disks[0].chain, ["[LocalDS_0] DC0_H0_VM0/disk1.vmdk"]);
        assert_eq!((hardware.name.as_str(), hardware.power), ("DC0_H0_VM0", Power::On));
    }
    let e = session.hardware(&second, Some(&newer)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ObjectNotFound);
    assert!(e.to_string().contains("it has none"), "{e}");
    let e = session.hardware(&first, Moref::snapshot("snapshot-none").as_ref()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ObjectNotFound);
    assert!(e.to_string().contains(&older.id) && e.to_string().contains(&newer.id), "{e}");
}

#[test]
fn tickets_are_for_what_was_asked() {
    requires!(&vcsim::program());
    for (server, path) in [(vcsim::vcenter(), MACHINE), (vcsim::host(), "ha-datacenter/vm/ha-host_VM0")] {
        let lines = Lines::default();
        let session = server.open(vcsim::user("pass"), lines.log()).unwrap();
        let machine = machine(&session, path);
        let files = session.ticket_for_files(&machine).unwrap();
        assert_eq!(files.id.expose_text().unwrap(), format!("files-{}", machine.id));
        assert_eq!((files.host, files.port, files.service.as_str()), (None, 902, "vpxa-nfc"));
        assert_eq!(files.identity, Some(HostIdentity::Thumbprint("AA:BB".into())));
        let host = session.hardware(&machine, None).unwrap().host.unwrap();
        let write = session.ticket_for_disk(&machine, 2000, Some(&host), true).unwrap();
        assert_eq!(write.id.expose_text().unwrap(), format!("write-{}-2000", machine.id));
        assert_eq!(write.host.unwrap(), format!("{}.example.com", host.id));
        let read = session.ticket_for_disk(&machine, -7, None, false).unwrap();
        assert_eq!(read.id.expose_text().unwrap(), format!("read-{}--7", machine.id));
        assert_eq!(kind(session.ticket_for_files(&Moref::machine("vm-none"))), ErrorKind::MachineNotFound);
        assert!(!lines.text().contains(&format!("-{}", machine.id)), "{}", lines.text());
    }
}

#[test]
fn relocation_is_disabled_for_one_identity_at_a_time() {
    requires!(&vcsim::program());
    let server = vcsim::vcenter();
    let session = server.session();
    let machine = machine(&session, MACHINE);
    session.disable_relocation(&machine, "one").unwrap();
    session.disable_relocation(&machine, "one").unwrap();
    let e = session.disable_relocation(&machine, "two").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::OperationDisabled);
    assert!(e.to_string().contains("sourceId \"one\""), "{e}");
    session.enable_relocation(&machine, "one").unwrap();
    session.disable_relocation(&machine, "two").unwrap();
    assert_eq!(kind(session.disable_relocation(&machine, &"x".repeat(51))), ErrorKind::InvalidArgument);

    let session = vcsim::host();
    let session = session.session();
    let e = session.disable_relocation(&Moref::machine("1"), "one").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotSupported);
    assert!(e.to_string().contains("HostAgent is not a vCenter, cannot disable svmotion."), "{e}");
}

fn inner(said: &str) -> Moref {
    let (kind, rest) = said.split_once("<returnval type=\"").unwrap().1.split_once("\">").unwrap();
    Moref::new(kind, rest.split_once('<').unwrap().0)
}

#[test]
fn datacenters_and_datastores_have_their_names() {
    requires!(&vcsim::program());
    let server = vcsim::vcenter();
    let session = server.session();
    let machine = machine(&session, MACHINE);
    assert_eq!(session.datacenter_path(&machine).unwrap(), "DC0");
    let datastore = session.hardware(&machine, None).unwrap().disks[0].datastore.clone().unwrap();
    assert_eq!(session.datacenter_path(&datastore).unwrap(), "DC0");
    assert_eq!(session.datastore_name(&datastore).unwrap(), "LocalDS_0");
    assert_eq!(kind(session.datastore_name(&Moref::new("Datastore", "none"))), ErrorKind::ObjectNotFound);
    let create = |what: &str, inside: &str, name: &str| {
        inner(&server.soap(
            &session.cookie(),
            &format!("<{what} xmlns=\"urn:vim25\"><_this type=\"Folder\">{inside}</_this><name>{name}</name></{what}>"),
        ))
    };
    let folder = create("CreateFolder", "group-d1", "a &lt;b&gt;");
    let inner = create("CreateFolder", &folder.id, "c");
    let datacenter = create("CreateDatacenter", &inner.id, "d");
    assert_eq!(session.datacenter_path(&datacenter).unwrap(), "a <b>/c/d");
    assert_eq!(kind(session.datacenter_path(&folder)), ErrorKind::ObjectNotFound);

    let server = vcsim::host();
    let session = server.session();
    let machine = self::machine(&session, "ha-datacenter/vm/ha-host_VM0");
    assert_eq!(session.datacenter_path(&machine).unwrap(), "ha-datacenter");
}

#[test]
fn a_first_class_disk_has_a_path() {
    requires!(&vcsim::program());
    let server = vcsim::vcenter();
    let session = server.session();
    let hardware = session.hardware(&machine(&session, MACHINE), None).unwrap();
    let datastore = hardware.disks[0].datastore.clone().unwrap();
    let said = server.soap(
        &session.cookie(),
        &format!(
            "<CreateDisk_Task xmlns=\"urn:vim25\"><_this type=\"VcenterVStorageObjectManager\">VStorageObjectManager</_this>\
             <spec><name>fcd</name><backingSpec xsi:type=\"VslmCreateSpecDiskFileBackingSpec\">\
             <datastore type=\"Datastore\">{}</datastore></backingSpec><capacityInMB>1</capacityInMB></spec></CreateDisk_Task>",
            datastore.id
        ),
    );
    let made = server.result(&session.cookie(), between(&said, "<returnval type=\"Task\">", "</returnval>"));
    let id = between(&made, "<id><id>", "</id>");
    let path = session.first_class_disk(id, &datastore, None).unwrap();
    assert!(path.starts_with("[LocalDS_0] fcd/") && path.ends_with(".vmdk"), "{path}");
    assert_eq!(kind(session.first_class_disk("none", &datastore, None)), ErrorKind::ObjectNotFound);
}
