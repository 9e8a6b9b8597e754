// Prints the descriptor of CRI v1 as k8s.io/cri-api publishes it, a fact a
// line, in declaration order: the oracle for cri-proto's own .proto text.
package main

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
	v1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func typeName(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return fmt.Sprintf("map<%s,%s>", typeName(f.MapKey()), typeName(f.MapValue()))
	case f.Message() != nil:
		return string(f.Message().FullName())
	case f.Enum() != nil:
		return string(f.Enum().FullName())
	default:
		return f.Kind().String()
	}
}

func message(m protoreflect.MessageDescriptor) {
	if m.IsMapEntry() {
		return
	}
	fmt.Printf("message %s\n", m.FullName())
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		label := "singular"
		if f.IsList() {
			label = "repeated"
		} else if f.HasOptionalKeyword() {
			label = "optional"
		}
		if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
			label = "oneof:" + string(o.Name())
		}
		fmt.Printf("field %s %d %s %s\n", f.FullName(), f.Number(), label, typeName(f))
	}
	for i := range m.Enums().Len() {
		enum(m.Enums().Get(i))
	}
	for i := range m.Messages().Len() {
		message(m.Messages().Get(i))
	}
}

func enum(e protoreflect.EnumDescriptor) {
	fmt.Printf("enum %s\n", e.FullName())
	for i := range e.Values().Len() {
		v := e.Values().Get(i)
		fmt.Printf("value %s.%s %d\n", e.FullName(), v.Name(), v.Number())
	}
}

func main() {
	file := v1.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto
	fmt.Printf("package %s\n", file.Package())
	for i := range file.Services().Len() {
		s := file.Services().Get(i)
		for j := range s.Methods().Len() {
			m := s.Methods().Get(j)
			kind := "unary"
			if m.IsStreamingServer() {
				kind = "stream"
			}
			fmt.Printf("rpc %s %s %s %s\n", m.FullName(), kind, m.Input().FullName(), m.Output().FullName())
		}
	}
	for i := range file.Enums().Len() {
		enum(file.Enums().Get(i))
	}
	for i := range file.Messages().Len() {
		message(file.Messages().Get(i))
	}
}
