package qemu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Network is a network of machines: what one of its cards sends reaches all
// others on it, as on a hub, and nobody else. It needs no rights on the host
// and has neither a port nor a path: each card is a descriptor that its QEMU
// inherits. The zero value is an empty network.
//
// Nobody hands out addresses. The faults may be changed while machines run;
// each is for frames that are sent from then on. Safe for concurrent use.
type Network struct {
	mu      sync.Mutex
	plugged int     // how many cards ever were on it
	ports   []*port // that are on it
	loss    float64
	seed    uint64
	delay   time.Duration
	group   map[string]int        // machine -> part of a partitioned network; nil: it is whole
	fates   map[[2]int]*rand.Rand // sender and receiver -> who decides what is lost
}

// port is the network's end of one card's cable.
type port struct {
	network *Network
	machine string
	number  int // in the order in which cards were plugged in
	conn    *net.UnixConn
	queue   chan delivery
	gone    chan struct{}
	work    sync.WaitGroup
}

// delivery is a frame on its way.
type delivery struct {
	due   time.Time
	frame []byte // with its length before it
}

// queued is how many frames may be on their way to one card; what comes then is
// lost, as in any switch. With a delay it bounds what can be under way.
const queued = 1024

// maxFrame bounds a frame's length (QEMU, include/net/net.h, NET_BUFSIZE).
const maxFrame = 4096 + 65536

// lengthSize is what QEMU puts before each frame: its length, big-endian
// (QEMU, net/stream.c).
const lengthSize = 4

// Lose loses a part of all frames, from 0 to 1; 0 ends it. What becomes of the
// n-th frame from one card to another depends on the seed alone, and on which
// of the network's cards they are, in the order in which their machines were
// started: a loss can be had again.
func (n *Network) Lose(rate float64, seed uint64) error {
	if !(rate >= 0 && rate <= 1) {
		return fmt.Errorf("qemu: a loss of %v; give a part from 0 to 1", rate)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss, n.seed, n.fates = rate, seed, map[[2]int]*rand.Rand{}
	return nil
}

// Delay holds every frame up for so long on its way; 0 ends it. Frames do not
// overtake one another. No more than 1024 can be on their way to a card.
func (n *Network) Delay(d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("qemu: a delay of %v", d)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
	return nil
}

// Partition splits the network: machines, by name, see those of their own group
// and no others. One that no group names, or that is plugged in later, sees
// nobody. It takes the place of a partition before it.
func (n *Network) Partition(groups ...[]string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var names []string
	for _, p := range n.ports {
		names = append(names, p.machine)
	}
	group := map[string]int{}
	for i, machines := range groups {
		for _, m := range machines {
			if !slices.Contains(names, m) {
				return fmt.Errorf("qemu: no machine %q is on the network; there are: %s", m, strings.Join(names, ", "))
			}
			if _, twice := group[m]; twice {
				return fmt.Errorf("qemu: machine %q is in two parts of the network", m)
			}
			group[m] = i
		}
	}
	n.group = group
	return nil
}

// Heal ends the partition. Loss and delay stay.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.group = nil
}

// plug puts a card of a machine on the network and returns the end of the cable
// that QEMU must get. Whoever plugs it unplugs it.
func (n *Network) plug(machine string) (*port, *os.File, error) {
	conn, far, err := socketPair("network")
	if err != nil {
		return nil, nil, err
	}
	p := &port{network: n, machine: machine, conn: conn, queue: make(chan delivery, queued), gone: make(chan struct{})}
	n.mu.Lock()
	p.number = n.plugged
	n.plugged++
	n.ports = append(n.ports, p)
	n.mu.Unlock()
	p.work.Go(p.listen)
	p.work.Go(p.deliver)
	return p, far, nil
}

// unplug takes the card off the network, with all that was on its way to it.
func (p *port) unplug() error {
	n := p.network
	n.mu.Lock()
	n.ports = slices.DeleteFunc(n.ports, func(o *port) bool { return o == p })
	n.mu.Unlock()
	close(p.gone)
	err := p.conn.Close()
	p.work.Wait()
	return err
}

// listen passes on what the card sends, until its QEMU ends. What is no frame
// ends it as well: there is no way to find the next one.
func (p *port) listen() {
	for {
		frame := make([]byte, lengthSize, 2048)
		if _, err := io.ReadFull(p.conn, frame); err != nil {
			return
		}
		length := binary.BigEndian.Uint32(frame)
		if length > maxFrame {
			return
		}
		frame = slices.Grow(frame, int(length))[:lengthSize+int(length)]
		if _, err := io.ReadFull(p.conn, frame[lengthSize:]); err != nil {
			return
		}
		p.network.send(p, frame)
	}
}

// send puts a frame on its way to everyone who is to see it.
func (n *Network) send(from *port, frame []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	due := time.Now().Add(n.delay)
	for _, to := range n.ports {
		if to == from || n.apart(from, to) || n.lost(from, to) {
			continue
		}
		select {
		case to.queue <- delivery{due, frame}:
		default: // the card takes less than it is sent
		}
	}
}

// apart reports whether the network is split between two cards.
func (n *Network) apart(a, b *port) bool {
	if n.group == nil || a.machine == b.machine {
		return false
	}
	x, okA := n.group[a.machine]
	y, okB := n.group[b.machine]
	return !okA || !okB || x != y
}

// lost decides the fate of the next frame between two cards.
func (n *Network) lost(from, to *port) bool {
	if n.loss == 0 {
		return false
	}
	way := [2]int{from.number, to.number}
	if n.fates[way] == nil {
		h := fnv.New64a()
		fmt.Fprint(h, way)
		n.fates[way] = rand.New(rand.NewPCG(n.seed, h.Sum64()))
	}
	return n.fates[way].Float64() < n.loss
}

// deliver hands frames to the card's QEMU when they are due.
func (p *port) deliver() {
	for {
		select {
		case d := <-p.queue:
			if !p.await(d.due) {
				return
			}
			if _, err := p.conn.Write(d.frame); err != nil {
				return
			}
		case <-p.gone:
			return
		}
	}
}

// await waits until then, unless the card is unplugged before.
func (p *port) await(then time.Time) bool {
	wait := time.Until(then)
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.gone:
		return false
	}
}

// plugNetworks puts the machine's cards on their networks and returns what QEMU
// must inherit for them, in order.
func (v *VM) plugNetworks(c Config) (far []*os.File, err error) {
	for _, nic := range c.NICs {
		if nic.Network == nil {
			continue
		}
		p, f, err := nic.Network.plug(nonEmpty(c.Name, "seatrial"))
		if err != nil {
			return far, err
		}
		v.ports, far = append(v.ports, p), append(far, f)
	}
	return far, nil
}

func (v *VM) unplugNetworks() error {
	var errs []error
	for _, p := range v.ports {
		errs = append(errs, p.unplug())
	}
	return errors.Join(errs...)
}
