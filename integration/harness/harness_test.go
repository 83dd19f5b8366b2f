package harness

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/razor-steering/razor/integration/testhost"
)

// verdicts is what becomes of some packets; the program is run twice, as frames are made
// anew after what it did to the last one.
func verdicts(t *testing.T, s *Subject, traffic Traffic, packets int) [8]uint64 {
	t.Helper()
	h, err := Load(s, traffic)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for range 2 {
		if _, err := h.Run(packets); err != nil {
			t.Fatal(err)
		}
	}
	counts, err := h.Verdicts()
	if err != nil {
		t.Fatal(err)
	}
	return counts
}

func TestTheHarnessAlonePassesAll(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	got := verdicts(t, nil, Traffic{Frame: make([]byte, Headers)}, 1000)
	if got[Pass] < 2000 || got[Drop]+got[TX]+got[0] != 0 {
		t.Error(got)
	}
}

// A program sees all flows alike often, and frames as they were before it changed them.
func TestEveryPacketIsFromAnotherFlow(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	const address, port = 30, 41
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R6, 4, asm.Word), // its end
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, Headers),
		asm.Mov.Imm(asm.R0, 0),
		asm.JGT.Reg(asm.R4, asm.R3, "out"),
		asm.LoadMem(asm.R0, asm.R2, address, asm.Byte), // of 8 flows: 0 to 7
		asm.LoadMem(asm.R1, asm.R2, 0, asm.Byte),
		asm.StoreImm(asm.R2, 0, 1, asm.Byte),
		asm.JEq.Imm(asm.R1, 0, "out"),
		asm.Mov.Imm(asm.R0, 0), // the frame has what an earlier run wrote
		asm.Return().WithSymbol("out"),
	}
	for _, in := range spec.Programs["harness"].Instructions {
		if in.Symbol() == subject {
			code[0] = btf.WithFuncMetadata(code[0], btf.FuncMetadata(&in)).WithSource(in.Source())
		}
	}
	s := &Subject{program: &ebpf.ProgramSpec{Name: "mirror", Instructions: code}}
	got := verdicts(t, s, Traffic{Frame: make([]byte, 200), Address: address, Port: port}.Flows(8), 8000)
	if least, most := slices.Min(got[:]), slices.Max(got[:]); least < 2000 || most > least+1 {
		t.Errorf("packets of the flows: %v, want 2000 each", got)
	}
}
