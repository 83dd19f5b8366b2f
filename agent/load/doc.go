// Package load measures how loaded a host or a container is, several times a second,
// and says when its level changes. What the level is made of is [steering.Leveler]'s.
package load
