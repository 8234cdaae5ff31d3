// What govmomi's simulator lacks of a vCenter: NFC tickets, and methods that are disabled by name.
package main

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type reference = types.ManagedObjectReference

// Requests. Fields that do not come are empty, so that the answers can say what came.
type NfcGetVmFiles struct {
	This reference `xml:"_this"`
	Vm   reference `xml:"vm"`
}

type NfcRandomAccessOpenDisk struct {
	This reference  `xml:"_this"`
	Vm   reference  `xml:"vm"`
	Key  int32      `xml:"diskDeviceKey"`
	Host *reference `xml:"hostForAccess"`
}

type NfcRandomAccessOpenReadonly NfcRandomAccessOpenDisk

type DisableMethods struct {
	This   reference   `xml:"_this"`
	Entity []reference `xml:"entity"`
	Method []struct {
		Method string `xml:"method"`
		Reason string `xml:"reasonId"`
	} `xml:"method"`
	Source string `xml:"sourceId"`
}

type EnableMethods struct {
	This   reference   `xml:"_this"`
	Entity []reference `xml:"entity"`
	Method []string    `xml:"method"`
	Source string      `xml:"sourceId"`
}

// Answers. The name of the type of Res is that of the element.
type ticket struct {
	Host       string `xml:"host,omitempty"`
	Port       int32  `xml:"port"`
	Thumbprint string `xml:"sslThumbprint"`
	Service    string `xml:"service"`
	Version    string `xml:"serviceVersion"`
	Session    string `xml:"sessionId"`
}

type NfcGetVmFilesResponse struct {
	Returnval ticket `xml:"returnval"`
}
type NfcRandomAccessOpenDiskResponse NfcGetVmFilesResponse
type NfcRandomAccessOpenReadonlyResponse NfcGetVmFilesResponse
type DisableMethodsResponse struct{}
type EnableMethodsResponse struct{}

type body struct {
	Res    interface{} `xml:"urn:vim25 Response,omitempty"`
	Fault_ *soap.Fault `xml:"http://schemas.xmlsoap.org/soap/envelope/ Fault,omitempty"`
}

func (b *body) Fault() *soap.Fault { return b.Fault_ }

type filesBody struct {
	body
	Res *NfcGetVmFilesResponse
}
type diskBody struct {
	body
	Res *NfcRandomAccessOpenDiskResponse
}
type readonlyBody struct {
	body
	Res *NfcRandomAccessOpenReadonlyResponse
}
type disableBody struct {
	body
	Res *DisableMethodsResponse
}
type enableBody struct {
	body
	Res *EnableMethodsResponse
}

// The simulator takes every object apart down to a type of the package mo, which has to come first.
type NfcService struct{ mo.ExtensibleManagedObject }

func answer(host *reference, session string) ticket {
	t := ticket{Port: 902, Thumbprint: "AA:BB", Service: "vpxa-nfc", Version: "1.1", Session: session}
	if host != nil {
		t.Host = host.Value + ".example.com"
	}
	return t
}

func missing(vm reference) *soap.Fault {
	if simulator.Map.Get(vm) != nil {
		return nil
	}
	return simulator.Fault("", &types.ManagedObjectNotFound{Obj: vm})
}

func (s *NfcService) NfcGetVmFiles(r *NfcGetVmFiles) soap.HasFault {
	res := &NfcGetVmFilesResponse{answer(nil, "files-"+r.Vm.Value)}
	return &filesBody{body{Fault_: missing(r.Vm)}, res}
}

func (s *NfcService) NfcRandomAccessOpenDisk(r *NfcRandomAccessOpenDisk) soap.HasFault {
	res := &NfcRandomAccessOpenDiskResponse{answer(r.Host, fmt.Sprintf("write-%s-%d", r.Vm.Value, r.Key))}
	return &diskBody{body{Fault_: missing(r.Vm)}, res}
}

func (s *NfcService) NfcRandomAccessOpenReadonly(r *NfcRandomAccessOpenReadonly) soap.HasFault {
	res := &NfcRandomAccessOpenReadonlyResponse{answer(r.Host, fmt.Sprintf("read-%s-%d", r.Vm.Value, r.Key))}
	return &readonlyBody{body{Fault_: missing(r.Vm)}, res}
}

// AuthorizationManager with the two methods that are not in the public interface.
type AuthorizationManager struct {
	simulator.AuthorizationManager
	lock     sync.Mutex
	disabled map[string]string
}

func (m *AuthorizationManager) DisableMethods(r *DisableMethods) soap.HasFault {
	m.lock.Lock()
	defer m.lock.Unlock()
	for _, entity := range r.Entity {
		for _, method := range r.Method {
			name := entity.Value + " " + method.Method
			if source, ok := m.disabled[name]; ok {
				fault := &types.MethodAlreadyDisabledFault{SourceId: source}
				return &disableBody{body{Fault_: simulator.Fault("already disabled", fault)}, nil}
			}
			m.disabled[name] = r.Source
		}
	}
	return &disableBody{Res: &DisableMethodsResponse{}}
}

func (m *AuthorizationManager) EnableMethods(r *EnableMethods) soap.HasFault {
	m.lock.Lock()
	defer m.lock.Unlock()
	for _, entity := range r.Entity {
		for _, method := range r.Method {
			delete(m.disabled, entity.Value+" "+method)
		}
	}
	return &enableBody{Res: &EnableMethodsResponse{}}
}

func addNfc() {
	for name, request := range map[string]interface{}{
		"NfcGetVmFiles":               NfcGetVmFiles{},
		"NfcRandomAccessOpenDisk":     NfcRandomAccessOpenDisk{},
		"NfcRandomAccessOpenReadonly": NfcRandomAccessOpenReadonly{},
		"DisableMethods":              DisableMethods{},
		"EnableMethods":               EnableMethods{},
	} {
		types.Add(name, reflect.TypeOf(request))
	}
	simulator.Map.Put(&NfcService{mo.ExtensibleManagedObject{Self: reference{Type: "NfcService", Value: "NfcService"}}})
	manager := simulator.Map.Get(reference{Type: "AuthorizationManager", Value: "AuthorizationManager"})
	if known, ok := manager.(*simulator.AuthorizationManager); ok { // a bare host has another
		simulator.Map.Put(&AuthorizationManager{AuthorizationManager: *known, disabled: map[string]string{}})
	}
}
