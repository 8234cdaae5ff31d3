// govmomi-sim READY USER BEHAVIOUR...: govmomi, which is what govc is made of, as a client of vixsim.
//
// READY is the file that vixsim writes when it is ready, the password stands in VIXSIM_PASSWORD. Each behaviour ends the
// program with a message when something is not as the ready file says. Prints the names of the behaviours that went well.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vslm"
)

type disk struct {
	Path string
	Key  int32
	File string
}

type ready struct {
	URL        string
	Thumbprint string `json:"thumbprint_sha1"`
	Vms        []struct {
		Name      string
		Moref     string
		Disks     []disk
		Snapshots []struct{ Name, Moref string }
	}
	FirstClass []struct {
		Name, ID, Datastore, Path string
		Snapshots                 []string
	} `json:"first_class"`
}

type scene struct {
	ctx    context.Context
	ready  ready
	user   *url.Userinfo
	client *govmomi.Client
	finder *find.Finder
}

// must ends the program when something went wrong.
func must(err error, what string) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}

// same ends the program when two values are not alike.
func same(got, wanted interface{}, what string) {
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		log.Fatalf("%s: %v instead of %v", what, got, wanted)
	}
}

func (s *scene) connect(user *url.Userinfo) (*govmomi.Client, error) {
	u, err := soap.ParseURL(s.ready.URL)
	must(err, "the URL")
	transport := soap.NewClient(u, false)
	transport.SetThumbprint(u.Host, s.ready.Thumbprint)
	transport.Version = os.Getenv("GOVC_VIM_VERSION") // as govc has it; without, the library's own
	client, err := vim25.NewClient(s.ctx, transport)
	if err != nil {
		return nil, err
	}
	manager := session.NewManager(client)
	if err := manager.Login(s.ctx, user); err != nil {
		return nil, err
	}
	return &govmomi.Client{Client: client, SessionManager: manager}, nil
}

func (s *scene) machine(name string) *object.VirtualMachine {
	machine, err := s.finder.VirtualMachine(s.ctx, name)
	must(err, name)
	return machine
}

// first is the first machine of the ready file, as the finder knows it.
func (s *scene) first() *object.VirtualMachine {
	return s.machine(s.ready.Vms[0].Name)
}

// place takes a path of a datastore apart, and finds that.
func (s *scene) place(of string) (*object.Datastore, string) {
	var where object.DatastorePath
	if !where.FromString(of) {
		log.Fatalf("%q is no path of a datastore", of)
	}
	datastore, err := s.finder.Datastore(s.ctx, where.Datastore)
	must(err, where.Datastore)
	return datastore, where.Path
}

func (s *scene) logins() {
	name := s.user.Username()
	active, err := s.client.SessionManager.UserSession(s.ctx)
	must(err, "the session")
	same(active.UserName, name, "its user")
	_, err = s.connect(url.UserPassword(name, "not this"))
	if err == nil || !strings.Contains(err.Error(), "incorrect user name or password") {
		log.Fatalf("a wrong password: %v", err)
	}
	other, err := s.connect(s.user)
	must(err, "another login")
	must(other.Logout(s.ctx), "its logout")
	_, err = methods.GetCurrentTime(s.ctx, other)
	if !soap.IsSoapFault(err) {
		log.Fatalf("a call after the logout: %v", err)
	}
	_, is := soap.ToSoapFault(err).VimFault().(types.NotAuthenticated)
	same(is, true, "the fault is NotAuthenticated")
	_, err = methods.GetCurrentTime(s.ctx, s.client)
	must(err, "the first session goes on")
}

func (s *scene) inventory() {
	machines, err := s.finder.VirtualMachineList(s.ctx, "*")
	must(err, "the machines")
	same(len(machines), len(s.ready.Vms), "machines")
	for _, wanted := range s.ready.Vms {
		found := s.machine(wanted.Name)
		same(found.Reference().Value, wanted.Moref, wanted.Name)
		byPath, err := object.NewSearchIndex(s.client.Client).FindByInventoryPath(s.ctx, found.InventoryPath)
		must(err, found.InventoryPath)
		same(byPath.Reference(), found.Reference(), found.InventoryPath)
		host, err := found.HostSystem(s.ctx)
		must(err, "its host")
		_, err = s.finder.ObjectReference(s.ctx, host.Reference())
		must(err, "the host's place")
		byUUID, err := object.NewSearchIndex(s.client.Client).FindByUuid(s.ctx, nil, found.UUID(s.ctx), true, nil)
		must(err, "by its UUID")
		same(byUUID.Reference(), found.Reference(), "the machine of its UUID")
	}
	_, err = s.finder.VirtualMachine(s.ctx, "nobody")
	var missing *find.NotFoundError
	same(errors.As(err, &missing), true, fmt.Sprintf("a machine that is not there: %v", err))
	_, err = s.finder.HostSystemList(s.ctx, "*")
	must(err, "the hosts")
	_, err = s.finder.DefaultResourcePool(s.ctx)
	must(err, "the pool")
}

func (s *scene) disks(machine *object.VirtualMachine) []*types.VirtualDisk {
	devices, err := machine.Device(s.ctx)
	must(err, "the devices")
	var disks []*types.VirtualDisk
	for _, device := range devices.SelectByType((*types.VirtualDisk)(nil)) {
		disk := device.(*types.VirtualDisk)
		_, is := devices.FindByKey(disk.ControllerKey).(types.BaseVirtualController)
		same(is, true, "a disk sits on a controller")
		disks = append(disks, disk)
	}
	return disks
}

func fileOf(disk *types.VirtualDisk) string {
	return disk.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo().FileName
}

func (s *scene) devices() {
	for _, wanted := range s.ready.Vms {
		disks := s.disks(s.machine(wanted.Name))
		same(len(disks), len(wanted.Disks), wanted.Name+": disks")
		for at, disk := range disks {
			same(disk.Key, wanted.Disks[at].Key, "its key")
			same(fileOf(disk), wanted.Disks[at].Path, "its file")
			same(disk.CapacityInBytes, disk.CapacityInKB*1024, "its size")
			chain := 0
			for backing, _ := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); backing != nil; backing = backing.Parent {
				chain++
			}
			same(chain > len(wanted.Snapshots), len(wanted.Snapshots) == 0 || at == 0, "the chain of its first disk")
		}
	}
}

func (s *scene) snapshots() {
	machine := s.first()
	before := fileOf(s.disks(machine)[0])
	made, err := machine.CreateSnapshot(s.ctx, "of govmomi", "a description", false, false)
	must(err, "the task")
	info, err := made.WaitForResult(s.ctx, nil)
	must(err, "a snapshot")
	found, err := machine.FindSnapshot(s.ctx, "of govmomi")
	must(err, "the snapshot by its name")
	same(*found, info.Result, "the result of the task")
	disk := s.disks(machine)[0]
	same(fileOf(disk) != before, true, "the machine writes to a child")
	same(disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo).Parent.FileName, before, "whose parent is what was")
	var held mo.VirtualMachineSnapshot
	must(s.client.RetrieveOne(s.ctx, *found, []string{"config.hardware.device"}, &held), "the snapshot's disks")
	holds := object.VirtualDeviceList(held.Config.Hardware.Device).SelectByType((*types.VirtualDisk)(nil))
	same(fileOf(holds[0].(*types.VirtualDisk)), before, "what the snapshot holds")
	consolidate := true
	gone, err := machine.RemoveSnapshot(s.ctx, "of govmomi", false, &consolidate)
	must(err, "the removal")
	must(gone.Wait(s.ctx), "the removal")
	same(fileOf(s.disks(machine)[0]), before, "the machine writes to its file again")
	_, err = machine.FindSnapshot(s.ctx, "of govmomi")
	same(err != nil, true, "the snapshot is gone")
	_, err = machine.RemoveSnapshot(s.ctx, "of govmomi", false, &consolidate)
	same(err != nil, true, "once")
}

// waits for a property that changes while it waits.
func (s *scene) waits() {
	machine := s.first()
	seen := make(chan error, 1)
	begun := make(chan bool, 1)
	go func() {
		collector, err := property.DefaultCollector(s.client.Client).Create(s.ctx)
		if err != nil {
			seen <- err
			return
		}
		defer func() { _ = collector.Destroy(context.Background()) }()
		times := 0
		seen <- property.Wait(s.ctx, collector, machine.Reference(), []string{"runtime.powerState"}, func(changes []types.PropertyChange) bool {
			times++
			if times == 1 {
				begun <- true
			}
			for _, change := range changes {
				if change.Val == types.VirtualMachinePowerStatePoweredOn {
					return true
				}
			}
			return false
		})
	}()
	<-begun
	on, err := machine.PowerOn(s.ctx)
	must(err, "switching it on")
	must(on.Wait(s.ctx), "switching it on")
	must(<-seen, "waiting for its power")
	again, err := machine.PowerOn(s.ctx)
	must(err, "once more")
	var fault task.Error
	same(errors.As(again.Wait(s.ctx), &fault), true, "it runs already")
	_, is := fault.Fault().(*types.InvalidPowerState)
	same(is, true, "the fault is InvalidPowerState")
	off, err := machine.PowerOff(s.ctx)
	must(err, "switching it off")
	must(off.Wait(s.ctx), "switching it off")
	must(machine.WaitForPowerState(s.ctx, types.VirtualMachinePowerStatePoweredOff), "its power")
}

func names(found types.HostDatastoreBrowserSearchResults) map[string]types.BaseFileInfo {
	all := map[string]types.BaseFileInfo{}
	for _, file := range found.File {
		all[file.GetFileInfo().Path] = file
	}
	return all
}

func (s *scene) browses() {
	wanted := s.ready.Vms[0].Disks[0]
	datastore, place := s.place(wanted.Path)
	about, err := os.Stat(wanted.File)
	must(err, wanted.File)
	found, err := datastore.Stat(s.ctx, place)
	must(err, "the disk's file")
	info := found.GetFileInfo()
	same(info.Path, path.Base(place), "its name")
	same(info.FileSize, about.Size(), "its size")
	same(info.Modification.Unix(), about.ModTime().Unix(), "when it was written to")
	_, is := found.(*types.VmDiskFileInfo)
	same(is, true, "it is a disk")
	_, err = datastore.Stat(s.ctx, path.Dir(place)+"/none.vmdk")
	same(errors.As(err, new(object.DatastoreNoSuchFileError)), true, fmt.Sprintf("a file that is not there: %v", err))
	_, err = datastore.Stat(s.ctx, "none/none.vmdk")
	same(errors.As(err, new(object.DatastoreNoSuchDirectoryError)), true, fmt.Sprintf("a folder that is not there: %v", err))

	browser, err := datastore.Browser(s.ctx)
	must(err, "the browser")
	search := func(where string, spec *types.HostDatastoreBrowserSearchSpec) map[string]types.BaseFileInfo {
		begun, err := browser.SearchDatastore(s.ctx, where, spec)
		must(err, where)
		info, err := begun.WaitForResult(s.ctx, nil)
		must(err, where)
		return names(info.Result.(types.HostDatastoreBrowserSearchResults))
	}
	top := search(datastore.Path(""), &types.HostDatastoreBrowserSearchSpec{Query: []types.BaseFileQuery{new(types.FolderFileQuery)}})
	_, is = top[path.Dir(place)].(*types.FolderFileInfo)
	same(is, true, "the disk's folder")
	disks := search(datastore.Path(path.Dir(place)), &types.HostDatastoreBrowserSearchSpec{MatchPattern: []string{"*.VMDK"}})
	same(len(disks), 0, "names are taken as they are")
	begun, err := browser.SearchDatastoreSubFolders(s.ctx, datastore.Path(""), &types.HostDatastoreBrowserSearchSpec{MatchPattern: []string{path.Base(place)}})
	must(err, "all folders")
	whole, err := begun.WaitForResult(s.ctx, nil)
	must(err, "all folders")
	hits := 0
	for _, folder := range whole.Result.(types.ArrayOfHostDatastoreBrowserSearchResults).HostDatastoreBrowserSearchResults {
		hits += len(folder.File)
	}
	same(hits >= 1, true, "the disk is found from the top")
	_, err = browser.SearchDatastore(s.ctx, "[another] x", nil)
	_, is = soap.ToSoapFault(err).VimFault().(types.InvalidDatastorePath)
	same(is, true, "another datastore's path")
}

func (s *scene) downloads() {
	wanted := s.ready.Vms[0].Disks[0]
	datastore, place := s.place(wanted.Path)
	content, err := os.ReadFile(wanted.File)
	must(err, wanted.File)
	body, size, err := datastore.Download(s.ctx, place, nil)
	must(err, "the download")
	defer body.Close()
	same(size, len(content), "its length")
	hash := sha256.New()
	_, err = io.Copy(hash, body)
	must(err, "the download")
	own := sha256.Sum256(content)
	same(hex.EncodeToString(hash.Sum(nil)), hex.EncodeToString(own[:]), "its content")
	_, _, err = datastore.Download(s.ctx, path.Dir(place)+"/none.vmdk", nil)
	same(err != nil && strings.Contains(err.Error(), "404"), true, fmt.Sprintf("a file that is not there: %v", err))
}

func (s *scene) firstClass() {
	manager := vslm.NewObjectManager(s.client.Client)
	for _, wanted := range s.ready.FirstClass {
		store := types.ManagedObjectReference{Type: "Datastore", Value: wanted.Datastore}
		ids, err := manager.List(s.ctx, store)
		must(err, "the first class disks")
		same(len(ids), len(s.ready.FirstClass), "as many as there are")
		found, err := manager.Retrieve(s.ctx, store, wanted.ID)
		must(err, wanted.Name)
		same(found.Config.Name, wanted.Name, "its name")
		same(found.Config.Id.Id, wanted.ID, "its id")
		backing := found.Config.Backing.(*types.BaseConfigInfoDiskFileBackingInfo)
		same(backing.FilePath, wanted.Path, "its file")
		same(backing.Datastore, store, "its datastore")
		same(found.Config.CapacityInMB > 0, true, "its size")
		_, err = manager.Retrieve(s.ctx, store, "none")
		_, is := soap.ToSoapFault(err).VimFault().(types.NotFound)
		same(is, true, "an id that is none")
		if !s.client.IsVC() {
			continue
		}
		for _, id := range wanted.Snapshots {
			details, err := methods.RetrieveSnapshotDetails(s.ctx, s.client, &types.RetrieveSnapshotDetails{
				This: manager.Reference(), Id: types.ID{Id: wanted.ID}, Datastore: store, SnapshotId: types.ID{Id: id},
			})
			must(err, "a snapshot")
			same(details.Returnval.Path != "" && details.Returnval.Path != wanted.Path, true, "a file of its own")
		}
	}
}

// refused shows that what vixsim does not do is refused as a server does that lacks it.
func (s *scene) refused() {
	machine := s.first()
	folder, err := s.finder.DefaultFolder(s.ctx)
	must(err, "the folder")
	_, err = machine.Clone(s.ctx, folder, "copy", types.VirtualMachineCloneSpec{})
	if err == nil || !soap.IsSoapFault(err) {
		log.Fatalf("a clone of a machine: %v", err)
	}
	_, is := soap.ToSoapFault(err).VimFault().(types.NotSupported)
	same(is, true, "the fault is NotSupported")
}

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	text, err := os.ReadFile(os.Args[1])
	must(err, "the ready file")
	s := &scene{ctx: ctx, user: url.UserPassword(os.Args[2], os.Getenv("VIXSIM_PASSWORD"))}
	must(json.Unmarshal(text, &s.ready), "the ready file")
	s.client, err = s.connect(s.user)
	must(err, "the login")
	s.finder = find.NewFinder(s.client.Client, true)
	center, err := s.finder.DefaultDatacenter(ctx)
	must(err, "the datacenter")
	s.finder.SetDatacenter(center)
	behaviours := map[string]func(){
		"logins": s.logins, "inventory": s.inventory, "devices": s.devices, "snapshots": s.snapshots, "waits": s.waits,
		"browses": s.browses, "downloads": s.downloads, "first-class": s.firstClass, "refused": s.refused,
	}
	for _, name := range os.Args[3:] {
		log.SetPrefix(name + ": ")
		behaviour, known := behaviours[name]
		if !known {
			log.Fatal("there is no such behaviour")
		}
		behaviour()
		fmt.Println(name)
	}
	log.SetPrefix("")
	must(s.client.Logout(ctx), "the logout")
}
